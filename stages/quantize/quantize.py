"""The RL model with fewer bits, calibrated layer by layer on the pipeline's own prompts, and what that costs."""

import copy
import csv
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from stages.quantize.calibration import calibration_examples
from stages.quantize.checkpoint import CompressedLayout, save_compressed, weight_bytes
from stages.quantize.divergence import divergence
from stages.quantize.layers import blocks_of, first_inputs, input_statistics, rounded_inputs, run_block
from stages.quantize.methods import WeightQuantizer
from stages.quantize.metrics import QuantizeMetrics
from stages.quantize.params import QuantizeParams
from stages.quantize.rounding import dequantize_weight, quantize_weight, relative_error, round_inputs
from stages.quantize.schemes import TABLE_BITS, check_weights, grid_of, quantizable, tables_to_round
from stages.shared.core.device import arithmetic, device_of
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.progress import tracked
from stages.shared.lm.encoding import WeightedExample
from stages.shared.lm.models import load_model, load_tokenizer

SOURCE = DATA / "rl/model"
TRACES = DATA / "traces/traces.parquet"
BFLOAT16_BYTES = 2

Quantized = dict[str, tuple[Tensor, Tensor]]  # name of a module -> codes, scales


def quantize(params: QuantizeParams, outputs: Outputs) -> None:
    tokenizer = load_tokenizer(SOURCE)
    model = load_model(SOURCE, arithmetic(params.dtype, device_of(params.device, "quantize.device")))
    examples = calibration_examples(TRACES, tokenizer, params.calibration_prompts, params.seed)
    parameters = model.num_parameters()
    quantized, errors, compared = quantize_model(model, params, examples, SOURCE)
    layout = CompressedLayout.of(model, grid_of(params), quantized)
    after = save_compressed(model, quantized, layout, tokenizer, outputs.path("model"))
    write_errors(errors, outputs.path("errors.csv"))
    worst = max(errors, key=lambda name: (errors[name], name))
    full = BFLOAT16_BYTES * parameters
    rounded = sum(codes.numel() for name, (codes, _) in quantized.items() if name not in layout.copies)
    outputs.metrics(
        {
            "scheme": params.scheme,
            "method": params.method,
            "bits": grid_of(params).bits,
            "tensors": len(errors),
            "quantized_parameter_share": rounded / parameters,
            "bytes": {"before": weight_bytes(SOURCE), "bfloat16": full, "after": after, "share_of_bfloat16": after / full},
            "weight_error": {"mean": fmean(errors.values()), "worst": errors[worst], "worst_tensor": worst},
            "calibration": {"source": "traces" if TRACES.exists() else "random tokens", **compared},
        },
        QuantizeMetrics,
    )


def quantize_model(
    model: PreTrainedModel, params: QuantizeParams, examples: list[WeightedExample], source: Path
) -> tuple[Quantized, dict[str, float], dict[str, float]]:
    """Replaces the weights of `model` by what their codes stand for -> (codes and scales, relative errors, divergence from the full model).

    Two streams of hidden states go through the layers side by side: the full model's, and that of the model as it is quantized so far,
    on which the next layer is calibrated. A layer is in memory once, and its full form is gone when the next one's turn comes.
    """
    grid, linears = grid_of(params), quantizable(model)
    check_weights(linears, grid, source)
    device = device_of(params.device, "quantize.device")
    family, head_dim = model.config.model_type, _head_dim(model)
    quantizer = WeightQuantizer(params, family, head_dim, linears)
    tables = tables_to_round(model, params.protect)
    full_head = _head_of(model, keep=bool(tables))
    full = first_inputs(model, examples, params.batch_size)
    quantized, errors = _round_tables(tables)
    stream = first_inputs(model, examples, params.batch_size) if tables else full
    name_of = {module: name for name, module in model.named_modules()}
    rounding = (lambda inputs: round_inputs(inputs, grid.activation_bits)) if grid.activation_bits else None
    for block in tracked(list(blocks_of(model)), "layers", unit="layer"):
        inside = {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}
        block.to(device)
        full = run_block(block, full, device)
        statistics = input_statistics(block, inside, stream, device) if quantizer.needs_statistics else {}
        codes, found = quantizer.quantize_block(block, name_of[block], inside, statistics)
        quantized |= codes
        errors |= found
        with rounded_inputs(inside, rounding):
            stream = run_block(block, stream, device)
        block.to("cpu")
    return quantized, errors, divergence(full, stream, full_head, _head_of(model, keep=False))


def _head_dim(model: PreTrainedModel) -> int:
    config: Any = model.config
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _head_of(model: PreTrainedModel, keep: bool) -> nn.Module:
    """The norm after the last layer, and the head. keep: copies, which stay as they are when the weights are replaced."""
    parts = nn.Sequential(model.get_decoder().norm, model.get_output_embeddings())  # type: ignore[no-untyped-call]
    return copy.deepcopy(parts) if keep else parts


def _round_tables(tables: Mapping[str, nn.Module]) -> tuple[Quantized, dict[str, float]]:
    """Embedding and head, a scale a row; one that is the other has the same codes."""
    quantized: Quantized = {}
    errors: dict[str, float] = {}
    done: dict[int, str] = {}
    for name, module in tables.items():
        weight: Any = module.weight
        if (same := done.get(id(weight))) is not None:
            quantized[name] = quantized[same]
            continue
        codes, scale = quantized[name] = quantize_weight(weight.data, TABLE_BITS)
        restored = dequantize_weight(codes, scale)
        errors[name] = relative_error(weight.data, restored)
        weight.data.copy_(restored)
        done[id(weight)] = name
    return quantized, errors


def write_errors(errors: dict[str, float], path: Path) -> None:
    """One row a tensor, in the model's order: tensor, relative_error (Frobenius)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tensor", "relative_error"])
        writer.writerows(errors.items())
