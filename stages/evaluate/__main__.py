from stages.evaluate.evaluate import evaluate
from stages.evaluate.params import EvaluateParams
from stages.shared.core.run import run_stage

if __name__ == "__main__":
    run_stage("evaluate", EvaluateParams, evaluate)
