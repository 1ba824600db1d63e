from stages.quantize.params import QuantizeParams
from stages.shared.core.run import EXTRAS, Compute, run_process


def load() -> Compute[QuantizeParams]:
    from stages.quantize.quantize import quantize

    return quantize


if __name__ == "__main__":
    run_process("quantize", QuantizeParams, load, hidden=EXTRAS)
