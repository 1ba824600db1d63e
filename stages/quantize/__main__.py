from stages.quantize.params import QuantizeParams
from stages.quantize.quantize import quantize
from stages.shared.core.run import run_stage

if __name__ == "__main__":
    run_stage("quantize", QuantizeParams, quantize)
