"""In which arithmetic a stage computes on this machine: its memory is reckoned by that."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from stages.shared.core.device import multiplies_in
from stages.tools.check_params import Params

S = TypeVar("S", bound=BaseModel)
TRAINING = ("midtrain", "sft", "distil", "rl")


def asks_model(params: Params) -> bool:
    """Whether a language model here writes the traces, not a server elsewhere."""
    return params.traces.teacher == "language_model" and params.traces.language_model.engine.kind != "endpoint"


def precisions(params: Params) -> dict[str, str]:
    """key -> the arithmetic that it asks for, of whatever computes under `params`."""
    found = {f"{name}.precision": getattr(params, name).precision for name in TRAINING if getattr(params, name).trains}
    found |= {"evaluate.engine.dtype": params.evaluate.engine.dtype}
    found |= {"quantize.dtype": params.quantize.dtype, "embed.dtype": params.embed.dtype}
    if params.rl.rollout.beside:  # else it samples from the policy's own weights
        found["rl.rollout.dtype"] = params.rl.rollout.dtype
    if asks_model(params):
        found["traces.language_model.engine.dtype"] = params.traces.language_model.engine.dtype
    if params.distil.mode in ("answer_only", "race"):
        found["distil.engine.dtype"] = params.distil.engine.dtype
    return found


def half_precisions(params: Params) -> dict[str, list[str]]:
    """bfloat16, float16 -> the keys that ask for it."""
    asked: dict[str, list[str]] = {}
    for key, dtype in precisions(params).items():
        if dtype in ("bfloat16", "float16"):
            asked.setdefault(dtype, []).append(key)
    return asked


def as_computed(params: Params, resources: Mapping[str, Mapping[str, Any]]) -> Params:
    """`params` with float32 wherever a stage without GPUs asks for what this machine's CPU does not multiply in."""
    for dtype, keys in half_precisions(params).items():
        if multiplies_in(dtype, "cpu"):
            continue
        for section, *path in (key.split(".") for key in keys):
            asks = f"{section}_shard" if getattr(getattr(params, section), "shards", None) else section
            if not resources.get(asks, {}).get("gpus", 0):
                params = params._replace(**{section: _changed(getattr(params, section), path, "float32")})
    return params


def _changed(section: S, path: Sequence[str], value: str) -> S:
    key, *rest = path
    return section.model_copy(update={key: _changed(getattr(section, key), rest, value) if rest else value})
