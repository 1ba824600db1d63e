from stages.retrieve.params import RetrieveParams
from stages.shared.core.run import Compute, run_process


def load() -> Compute[RetrieveParams]:
    from stages.retrieve.retrieve import retrieve

    return retrieve


if __name__ == "__main__":
    run_process("retrieve", RetrieveParams, load)
