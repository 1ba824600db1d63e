from stages.sft.params import SftParams
from stages.sft.sft import sft
from stages.shared.core.run import run_stage

if __name__ == "__main__":
    run_stage("sft", SftParams, sft)
