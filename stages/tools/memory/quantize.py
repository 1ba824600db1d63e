"""What the stage quantize takes: the whole model on the host, and one layer at a time where it is calibrated."""

from stages.quantize.params import BITS, CHUNK
from stages.tools.check_params import Params
from stages.tools.memory.formulas import WIDTH
from stages.tools.memory.shapes import Shape
from stages.tools.memory.stage import CONTEXT, GB, LIBRARIES, Sizes, StageMemory

GPTQ_COPIES = 4  # of a gram matrix: ordered, damped, its factor, the inverse's factor


def quantize_memory(memory: StageMemory, shape: Shape, params: Params, sizes: Sizes) -> None:
    """With a GPU the layer at work is there; without, it is on the host, and so are the products of its inputs."""
    quantize, width = params.quantize, WIDTH[params.quantize.dtype]
    codes = 1 + BITS[quantize.scheme] / 8  # in bytes: an integer each, and packed
    tokens = quantize.calibration_prompts * sizes.row
    streams = (2 + (len(quantize.protect) < 2)) * tokens * shape.hidden * width  # of both models, and one layer's results
    host = {
        "weights": (width + codes) * shape.parameters,
        "hidden states": streams,
        # Both models' logits as they come, in float32, and in float64 with their exponentials.
        "logits of a chunk": CHUNK * shape.rows * (2 * width + 8 + 32),
        "libraries": LIBRARIES,
    }
    layer = shape.matrices / shape.layers
    inner = max(shape.intermediate, shape.heads * shape.head_dim, shape.hidden)
    work = {
        "a layer": (width + 2 * 4 / 3) * layer,  # and the largest of its matrices in float32, twice
        "activations": quantize.batch_size * sizes.row * (6 * shape.hidden + 3 * inner) * width,
    }
    if quantize.method != "rtn":
        squares = 2 * shape.hidden**2 + (shape.heads * shape.head_dim) ** 2 + shape.intermediate**2
        work["products of inputs"] = 4 * (squares + GPTQ_COPIES * inner**2) + 4 * quantize.batch_size * sizes.row * inner
    if memory.gpus:
        memory.gpu = {name: part / GB for name, part in {**work, "context": CONTEXT}.items()}
    else:
        host |= work
    memory.host = {name: part / GB for name, part in host.items()}
