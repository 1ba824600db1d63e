from stages.prerank.params import PrerankParams
from stages.prerank.prerank import prerank
from stages.shared.run import run_stage

if __name__ == "__main__":
    run_stage("prerank", PrerankParams, prerank)
