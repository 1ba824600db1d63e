from stages.sft.params import SftParams
from stages.shared.core.run import EXTRAS, Compute, run_process


def load() -> Compute[SftParams]:
    from stages.sft.sft import sft

    return sft


if __name__ == "__main__":
    run_process("sft", SftParams, load, hidden=EXTRAS)
