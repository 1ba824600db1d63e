"""Who is measured: the language models by name, and the pairs that are compared."""

from collections.abc import Collection
from pathlib import Path

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA, read_json

MODELS = {"sft": DATA / "sft/model", "rl": DATA / "rl/model", "quantized": DATA / "quantize/model"}  # name -> folder
# distil.mode -> rankers that its model is, in the order measured, and whether each reasons (where prompt.reasoning says so).
DISTILLED = {
    "none": {},
    "on_policy": {"distil": True},
    "answer_only": {"distil": False},
    "race": {"distil": True, "distil_direct": False},
}
DISTIL_METRICS = DATA / "distil/metrics.json"
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
DISTILLED_CONTRASTS = (("distil", "sft"), ("rl", "distil"), ("distil", "lambdamart"), ("distil_direct", "distil"), ("distil_direct", "sft"))
QUANTIZED_MODEL = "quantized"  # made of PRIMARY_MODEL
PRIMARY_MODEL, REFERENCE_MODEL = "rl", "sft"  # the model the report is about, and the one its lengths are compared with


def distilled() -> dict[str, bool]:
    """The rankers that the stage `distil` made, each with whether it reasons; none by default."""
    mode = read_json(DISTIL_METRICS).get("mode")
    if mode not in DISTILLED:
        raise StageError(f"{DISTIL_METRICS}: not the metrics of this version's distillation (mode: {mode}); rerun: gr2 run distil")
    return dict(DISTILLED[mode])


def models() -> dict[str, Path]:
    """Name -> folder of all that are measured in this run, in the order of their making."""
    made = dict.fromkeys(distilled(), DATA / "distil/model")
    first, *others = MODELS.items()
    return dict([first, *made.items(), *others])


def contrasts_of(measured: Collection[str]) -> tuple[tuple[str, str], ...]:
    """The pairs to compare where these rankers were measured."""
    of_distilled = tuple(pair for pair in DISTILLED_CONTRASTS if set(pair) <= set(measured))
    return CONTRASTS + (ALL_FEATURES_CONTRASTS if ALL_FEATURES in measured else ()) + of_distilled
