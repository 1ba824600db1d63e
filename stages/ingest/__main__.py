from stages.ingest.params import IngestParams
from stages.shared.core.run import Compute, run_process


def load() -> Compute[IngestParams]:
    from stages.ingest.ingest import ingest

    return ingest


if __name__ == "__main__":
    run_process("ingest", IngestParams, load)
