from stages.distil.distil import distil, prepare
from stages.distil.params import DistilParams
from stages.shared.core.run import run_process

if __name__ == "__main__":
    run_process("distil", DistilParams, lambda: distil, prepare=prepare)
