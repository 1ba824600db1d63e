from stages.rl.params import RlParams
from stages.rl.rl import rl
from stages.shared.core.run import run_stage

if __name__ == "__main__":
    run_stage("rl", RlParams, rl)
