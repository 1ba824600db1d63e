from stages.midtrain.params import MidtrainParams
from stages.shared.core.run import EXTRAS, Compute, run_process


def load() -> Compute[MidtrainParams]:
    from stages.midtrain.midtrain import midtrain

    return midtrain


if __name__ == "__main__":
    run_process("midtrain", MidtrainParams, load, hidden=EXTRAS)
