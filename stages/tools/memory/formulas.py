"""Bytes that training and generation take, by what they are for. P: parameters; N: processes; T: tokens; V: rows of the embedding.

Training keeps 16 to 20 bytes a parameter (Rajbhandari et al., ZeRO, arXiv 1910.02054, section 3.1; here with float32 gradients where
DeepSpeed steps with them), of which ZeRO-2 leaves each process the weights and a share of the rest, ZeRO-3 a share of all. What is frozen
has its weights alone. Activations: Shape.layer_bytes of every layer, or with checkpointing the layers' inputs and one layer in full
(Korthikanti et al., arXiv 2205.05198).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.tools.memory.learning import Learning
from stages.tools.memory.shapes import Shape

Bytes = dict[str, float]
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
# A logit in the loss: as computed, as float32, its log-softmax and its gradient (float32 each; the first in half of it).
LOGIT_BYTES = 14
# DeepSpeed's defaults, in numbers: what ZeRO-3 gathers at a time, what is reduced at a time, and what a step of ZeRO-3 takes at a time.
DEFAULTS = {"stage3_max_live_parameters": 1e9, "reduce_bucket_size": 5e8, "sub_group_size": 1e9}


@dataclass(frozen=True)
class Sharding:
    """stage: of ZeRO, 0 = none; offloaded: whether DeepSpeed keeps optimizer and master weights on the host. live, bucket, step: numbers
    that are gathered, reduced and stepped with at a time."""

    processes: int = 1
    stage: int = 0
    offloaded: bool = False
    live: float = DEFAULTS["stage3_max_live_parameters"]
    bucket: float = DEFAULTS["reduce_bucket_size"]
    step: float = DEFAULTS["sub_group_size"]

    @classmethod
    def of(cls, processes: int, deepspeed: str) -> "Sharding":
        if not deepspeed:
            return cls(processes)
        options: Mapping[str, Any] = json.loads(Path(deepspeed).read_text(encoding="utf-8")).get("zero_optimization", {})
        # What is "auto" the Trainer derives from the model's width, to less than the default.
        live, bucket, step = (default if options.get(name, "auto") == "auto" else options[name] for name, default in DEFAULTS.items())
        stage = int(options.get("stage", 0))
        if stage in (1, 2) and options.get("overlap_comm"):
            bucket *= 2
        return cls(processes, stage, options.get("offload_optimizer", {}).get("device") == "cpu", live, bucket, step)

    def share(self, least_stage: int) -> float:
        """Of what this stage of ZeRO and higher ones shard: the part that one process has."""
        return 1 / self.processes if self.stage >= least_stage else 1.0


@dataclass(frozen=True)
class Training:
    """kept: from the first step to the last; backward: beside it while gradients are made, without activations; step: beside it while the
    optimizer steps."""

    kept: Bytes
    backward: Bytes
    step: Bytes


def weight_width(sharding: Sharding, bfloat16: bool, keeps_float32: bool) -> int:
    """keeps_float32: the weights stay float32 and autocast makes bfloat16 copies (rl); DeepSpeed with bf16 replaces them."""
    return 2 if sharding.stage and bfloat16 and not keeps_float32 else 4


def weights_and_optimizer(model: Learning, sharding: Sharding, bfloat16: bool, keeps_float32: bool) -> Training:
    """Of one process. AdamW has two moments; DeepSpeed's float32 master weights count as the optimizer's."""
    held, trained = model.held, model.trained
    width = weight_width(sharding, bfloat16, keeps_float32)
    copies = 2.0 * held if bfloat16 and width == 4 else 0.0  # of autocast
    # An embedding with the trained rows in it, as autocast reads it, and its gradient.
    backward = {"embeddings with new rows": (2.0 * width + (4.0 if copies else 0.0)) * model.merged}
    if not sharding.stage:
        # Several processes reduce copies of the gradients (DDP without gradient_as_bucket_view).
        buckets = 4.0 * trained if sharding.processes > 1 else 0.0
        kept = {"weights": 4.0 * held, "gradients": 4.0 * trained, "optimizer": 8.0 * trained - 4.0 * model.one_moment}
        return Training(kept, {**backward, "bfloat16 copies": copies, "gradient buckets": buckets}, {})
    # ZeRO-3 steps with float32 weights where they lie; the others with copies of their own.
    master = 0.0 if sharding.stage == 3 and width == 4 else 4.0
    kept = {
        "weights": width * held * sharding.share(3),
        "gradients": width * trained * sharding.share(2),
        "optimizer": (8 + master) * trained * sharding.share(1),
    }
    backward |= {"bfloat16 copies": copies, "gradient buckets": width * sharding.bucket}
    stepping = trained * sharding.share(1)
    if sharding.stage == 3:
        backward["gathered weights"] = width * min(sharding.live, held)
        step = 4.0 * min(sharding.step, stepping) if width == 2 else 0.0
    else:
        step = (width + (4.0 if width == 2 else 0.0)) * stepping  # flat, and that as float32
    return Training(kept, backward, {"gradients of the step": step})


def activations(shape: Shape, tokens: int, checkpointing: bool, bfloat16: bool = True) -> float:
    widened = 1.0 if bfloat16 else 2.0
    layers = 2 * shape.hidden * shape.layers + shape.layer_bytes() if checkpointing else shape.layers * shape.layer_bytes()
    return widened * tokens * layers


def logits(shape: Shape, tokens: int, chunk: int = 0) -> float:
    """chunk: tokens whose logits exist at a time; 0 = all."""
    return float(LOGIT_BYTES) * shape.rows * (min(tokens, chunk) if chunk else tokens)


def generation(shape: Shape, dtype: str, sequences: int, length: int) -> Bytes:
    """Weights, and keys and values of `sequences` of `length` tokens each."""
    width = WIDTH[dtype]
    return {"weights": float(width * shape.parameters), "key-value cache": float(sequences * length * shape.kv_bytes(width))}
