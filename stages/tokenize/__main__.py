from stages.shared.core.run import run_stage
from stages.tokenize.params import TokenizeParams
from stages.tokenize.tokenize import tokenize

if __name__ == "__main__":
    run_stage("tokenize", TokenizeParams, tokenize)
