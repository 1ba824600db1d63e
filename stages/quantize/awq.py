"""AWQ: inputs that matter are scaled up before rounding, and what makes them is scaled down, so that the model computes the same.

Lin et al., "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration" (arXiv 2306.00978). With s = a^r, a the
importance of each input channel (mean |x| there; stages/quantize/quantlrm.py has another one), r is searched on a grid (equation 5):

    r* = argmin_{0 <= r < 1} || Q(W diag(s)) diag(s)^-1 X - W X ||^2

for all layers that read the same input together. The norm before them, or the layer whose output they read, is divided by s: nothing is
left to do at inference. Then each group's range is searched as well (section 3.2 of the authors' code, `auto_clip`): rounding the largest
weights down may cost less than a wide step costs all others. Both errors are taken from G = sum of x x^T: ||D X||^2 = tr(D G D^T), so no
input is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.quantize.rounding import codes_of, dequantize_weight, quantize_weight, scales_of, spread
from stages.shared.core.errors import StageError

RATIOS = 20  # r = 0, 1/20, ...; r = 0 is rounding to nearest
CLIPS = [1 - step / 20 for step in range(11)]  # of the largest weight of a group: 1 to 0.5
KNOWN = ("llama", "mistral", "qwen2", "qwen3")  # families whose blocks are laid out as folds_of says


@dataclass(frozen=True)
class ScaledInput:
    """`layers` read one input, which `source` makes: a norm, or a linear layer whose output reaches them through no other matrix."""

    source: nn.Module
    layers: list[str]  # names within the block


def folds_of(block: nn.Module, family: str) -> list[ScaledInput]:
    if family not in KNOWN:
        raise StageError(
            f"params.yaml: quantize.method: awq and quantlrm know the blocks of {', '.join(KNOWN)}, and this model is a {family}; "
            "choose gptq"
        )
    module = block.get_submodule
    return [
        ScaledInput(module("input_layernorm"), ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        ScaledInput(module("self_attn.v_proj"), ["self_attn.o_proj"]),
        ScaledInput(module("post_attention_layernorm"), ["mlp.gate_proj", "mlp.up_proj"]),
        ScaledInput(module("mlp.up_proj"), ["mlp.down_proj"]),
    ]


def search_scale(weights: Sequence[Tensor], importance_I: Tensor, gram_II: Tensor, bits: int, group: int) -> Tensor:
    """s [I], float32, with the least error of the outputs; all ones where nothing is better than rounding to nearest."""
    best, least = torch.ones_like(importance_I), float("inf")
    for step in range(RATIOS):
        scale_I = importance_I.float().pow(step / RATIOS).clamp(min=1e-4)
        scale_I = scale_I / (scale_I.max() * scale_I.min()).sqrt()  # around 1, so that norms keep their size
        error = sum(output_error(_rounded(weight, scale_I, bits, group) - weight.float(), gram_II) for weight in weights)
        if error < least:
            best, least = scale_I, float(error)
    return best


def _rounded(weight_OI: Tensor, scale_I: Tensor, bits: int, group: int) -> Tensor:
    scaled = (weight_OI.float() * scale_I).to(weight_OI.dtype)
    return dequantize_weight(*quantize_weight(scaled, bits, group)).float() / scale_I


def output_error(difference_OI: Tensor, gram_II: Tensor) -> float:
    """||D X||^2 over the calibration inputs."""
    return float(((difference_OI @ gram_II) * difference_OI).sum())


def tied_to_source(importance_I: Tensor, source: nn.Module, head_dim: int) -> Tensor:
    """The mean over inputs that come from one output of `source`: with grouped-query attention, several heads read one head of values."""
    outputs = _outputs(source)
    if outputs == len(importance_I):
        return importance_I
    shared = importance_I.view(outputs // head_dim, -1, head_dim).mean(dim=1, keepdim=True)
    return shared.expand(-1, len(importance_I) // outputs, -1).reshape(-1)


def _outputs(source: nn.Module) -> int:
    return next(source.parameters()).shape[0]  # the weight


@torch.no_grad()
def fold(scale_I: Tensor, source: nn.Module, layers: Sequence[nn.Linear], head_dim: int) -> None:
    """Multiplies the inputs' columns by s and divides what makes these inputs by it, in place."""
    for layer in layers:
        layer.weight.copy_(layer.weight.float() * scale_I)
    outputs = _outputs(source)
    own = scale_I if outputs == len(scale_I) else scale_I.view(outputs // head_dim, -1, head_dim)[:, 0].reshape(-1)
    for parameter in source.parameters():  # a norm's weight, or a layer's weight and bias
        shaped = own if parameter.dim() == 1 else own[:, None]
        parameter.copy_(parameter.float() / shaped)


def search_range(weight_OI: Tensor, gram_II: Tensor, bits: int, group: int) -> Tensor:
    """Scales [O, G] at which the outputs' error is least, each group by itself."""
    full_OG = scales_of(weight_OI, bits, group)
    size = weight_OI.shape[1] // full_OG.shape[1]
    blocks_GII = torch.stack([gram_II[start : start + size, start : start + size] for start in range(0, len(gram_II), size)])
    best_OG, least_OG = full_OG, torch.full_like(full_OG, float("inf"), dtype=torch.float32)
    for clip in CLIPS:
        scale_OG = (full_OG.float() * clip).clamp(min=torch.finfo(torch.float32).tiny).to(full_OG.dtype)
        restored = codes_of(weight_OI, scale_OG, bits).float() * spread(scale_OG, weight_OI.shape[1]).float()
        difference_GOI = (restored - weight_OI.float()).unflatten(1, (-1, size)).transpose(0, 1)
        error_OG = ((difference_GOI @ blocks_GII) * difference_GOI).sum(dim=2).T
        best_OG = torch.where(error_OG < least_OG, scale_OG, best_OG)
        least_OG = torch.minimum(error_OG, least_OG)
    return best_OG
