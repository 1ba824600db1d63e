from stages.evaluate.params import EvaluateParams
from stages.shared.core.run import EXTRAS, Compute, run_process


def load() -> Compute[EvaluateParams]:
    from stages.evaluate.evaluate import evaluate

    return evaluate


if __name__ == "__main__":
    run_process("evaluate", EvaluateParams, load, hidden=EXTRAS)
