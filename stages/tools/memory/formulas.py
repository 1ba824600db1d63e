"""Bytes that training and generation take, by what they are for. P: parameters; N: processes; T: tokens; V: rows of the embedding.

Training keeps 16 to 20 bytes a parameter (Rajbhandari et al., ZeRO, arXiv 1910.02054, section 3.1; here with float32 gradients where
DeepSpeed reduces them so), of which ZeRO-2 leaves each process the weights and a share of the rest, ZeRO-3 a share of all. Activations:
Shape.layer_bytes of every layer, or with checkpointing the layers' inputs and one layer in full (Korthikanti et al., arXiv 2205.05198).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.tools.memory.shapes import Shape

Bytes = dict[str, float]
WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
# A logit in the loss: as computed, as float32, its log-softmax and its gradient (float32 each; the first in half of it).
LOGIT_BYTES = 14
LIVE_PARAMETERS = 1e9  # that ZeRO-3 gathers at a time (stage3_max_live_parameters, DeepSpeed's default)


@dataclass(frozen=True)
class Sharding:
    """stage: of ZeRO, 0 = none; offloaded: whether DeepSpeed keeps optimizer and master weights on the host."""

    processes: int = 1
    stage: int = 0
    offloaded: bool = False

    @classmethod
    def of(cls, processes: int, deepspeed: str) -> "Sharding":
        if not deepspeed:
            return cls(processes)
        options: Mapping[str, Any] = json.loads(Path(deepspeed).read_text(encoding="utf-8")).get("zero_optimization", {})
        return cls(processes, int(options.get("stage", 0)), options.get("offload_optimizer", {}).get("device") == "cpu")

    def share(self, least_stage: int) -> float:
        """Of what this stage of ZeRO and higher ones shard: the part that one process has."""
        return 1 / self.processes if self.stage >= least_stage else 1.0


def weights_and_optimizer(parameters: int, sharding: Sharding, bfloat16: bool, keeps_float32: bool) -> Bytes:
    """keeps_float32: the weights stay float32 and autocast makes bfloat16 copies (plain torch, and rl); DeepSpeed with bf16 replaces them,
    and its float32 master weights count as the optimizer's. AdamW has two moments."""
    P = parameters
    if not sharding.stage:
        return {"weights": (4 + 2 * bfloat16) * P, "gradients": 4.0 * P, "optimizer": 8.0 * P}
    width = 2 if bfloat16 and not keeps_float32 else 4
    parts = {
        # ZeRO-3 gathers a layer in bfloat16; elsewhere autocast keeps its copies until the end of the pass.
        "weights": width * P * sharding.share(3) + 2 * P * (bfloat16 and keeps_float32 and sharding.stage < 3),
        # Those of the backward pass, and as float32 in the step.
        "gradients": width * P * sharding.share(2) + (4 * P * sharding.share(1) if width == 2 else 0),
        "optimizer": 12 * P * sharding.share(1),
    }
    if sharding.stage == 3:
        parts["gathered weights"] = width * min(LIVE_PARAMETERS, P)
    return parts


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
