"""Who is measured: the language models by name, and the pairs that are compared."""

from collections.abc import Collection

from stages.shared.core.outputs import DATA

MODELS = {"sft": DATA / "sft/model", "rl": DATA / "rl/model", "quantized": DATA / "quantize/model"}  # name -> folder
ALL_FEATURES = "lambdamart_all_features"  # measured where prompt.more_features gives the models more than LambdaMART's six
CONTRASTS = (
    ("rl", "sft"),
    ("sft", "lambdamart"),
    ("rl", "lambdamart"),
    ("rl", "fusion"),
    ("fusion", "lambdamart"),
    ("quantized", "rl"),
)
ALL_FEATURES_CONTRASTS = (("sft", ALL_FEATURES), ("rl", ALL_FEATURES), (ALL_FEATURES, "lambdamart"))
PRIMARY_MODEL, REFERENCE_MODEL = "rl", "sft"  # the model the report is about, and the one its lengths are compared with


def contrasts_of(measured: Collection[str]) -> tuple[tuple[str, str], ...]:
    """The pairs to compare where these rankers were measured."""
    return CONTRASTS + (ALL_FEATURES_CONTRASTS if ALL_FEATURES in measured else ())
