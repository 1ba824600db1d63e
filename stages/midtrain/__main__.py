from stages.midtrain.midtrain import midtrain
from stages.midtrain.params import MidtrainParams
from stages.shared.core.run import run_stage

if __name__ == "__main__":
    run_stage("midtrain", MidtrainParams, midtrain)
