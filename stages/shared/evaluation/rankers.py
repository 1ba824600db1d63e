"""Who is measured: the language models by name, and the pairs that are compared."""

from pathlib import Path
from typing import NamedTuple

from stages.shared.core.outputs import DATA


class Model(NamedTuple):
    """`reasoning`: whether it thinks before it answers."""

    folder: Path
    reasoning: bool


MODELS = {
    "sft_no_reasoning": Model(DATA / "sft/no_reasoning", False),
    "sft": Model(DATA / "sft/model", True),
    "rl": Model(DATA / "rl/model", True),
    "quantized": Model(DATA / "quantize/model", True),
}
CONTRASTS = (
    ("rl", "sft"),
    ("rl", "sft_no_reasoning"),
    ("sft", "sft_no_reasoning"),
    ("rl", "lambdamart"),
    ("rl", "fusion"),
    ("fusion", "lambdamart"),
    ("quantized", "rl"),
)
PRIMARY_MODEL, REFERENCE_MODEL = "rl", "sft"  # the model the report is about, and the one its lengths are compared with
