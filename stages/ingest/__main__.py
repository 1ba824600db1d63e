from stages.ingest.ingest import ingest
from stages.ingest.params import IngestParams
from stages.shared.core.run import run_stage

if __name__ == "__main__":
    run_stage("ingest", IngestParams, ingest)
