from stages.shared.core.run import Compute, run_process
from stages.tokenize.params import TokenizeParams


def load() -> Compute[TokenizeParams]:
    from stages.tokenize.tokenize import tokenize

    return tokenize


if __name__ == "__main__":
    run_process("tokenize", TokenizeParams, load)
