from stages.rl.params import RlParams
from stages.shared.core.run import EXTRAS, Compute, run_process


def load() -> Compute[RlParams]:
    from stages.rl.rl import rl

    return rl


if __name__ == "__main__":
    run_process("rl", RlParams, load, hidden=EXTRAS)
