"""Who is measured: the language models by name, and the pairs that are compared."""

from stages.shared.core.outputs import DATA

MODELS = {"sft": DATA / "sft/model", "rl": DATA / "rl/model", "quantized": DATA / "quantize/model"}  # name -> folder
CONTRASTS = (
    ("rl", "sft"),
    ("sft", "lambdamart"),
    ("rl", "lambdamart"),
    ("rl", "fusion"),
    ("fusion", "lambdamart"),
    ("quantized", "rl"),
)
PRIMARY_MODEL, REFERENCE_MODEL = "rl", "sft"  # the model the report is about, and the one its lengths are compared with
