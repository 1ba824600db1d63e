from stages.distil.distil import distil, prepare
from stages.distil.params import DistilParams
from stages.shared.core.run import run_stage

if __name__ == "__main__":
    run_stage("distil", DistilParams, distil, prepare=prepare)
