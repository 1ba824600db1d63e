from stages.retrieve.params import RetrieveParams
from stages.retrieve.retrieve import retrieve
from stages.shared.core.run import run_stage

if __name__ == "__main__":
    run_stage("retrieve", RetrieveParams, retrieve)
