"""The RL model with 8-bit weights, and what that costs."""

import csv
from pathlib import Path
from statistics import fmean

import torch

from stages.quantize.calibration import Predictions, calibration_examples
from stages.quantize.checkpoint import quantizable, save_compressed, weight_bytes
from stages.quantize.int8 import dequantize_weight, quantize_weight, relative_error
from stages.quantize.metrics import QuantizeMetrics
from stages.quantize.params import QuantizeParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA, Outputs
from stages.shared.core.progress import tracked
from stages.shared.lm.models import load_model, load_tokenizer

SOURCE = DATA / "rl/model"
TRACES = DATA / "traces/traces.parquet"


def quantize(params: QuantizeParams, outputs: Outputs) -> None:
    tokenizer = load_tokenizer(SOURCE)
    model = load_model(SOURCE, params.dtype)
    layers = quantizable(model)
    if not layers:
        raise StageError(f"{SOURCE}: no linear layer apart from the output head; there is nothing to quantize")
    for name, layer in layers.items():
        if not bool(torch.isfinite(layer.weight).all()):
            raise StageError(f"{SOURCE}: {name}.weight holds NaN or infinity; lower rl.lr or sft.lr and train again")
    # The full model predicts first: its weights are replaced in place below, so that one copy is enough memory.
    predictions = Predictions(model, calibration_examples(TRACES, tokenizer, params.calibration_prompts, params.seed), params.batch_size)

    quantized, errors = {}, {}
    for name, layer in tracked(layers.items(), "layers", unit="layer"):
        codes, scale = quantized[name] = quantize_weight(layer.weight.data)
        restored = dequantize_weight(codes, scale)
        errors[name] = relative_error(layer.weight.data, restored)
        layer.weight.data.copy_(restored)
    after = save_compressed(model, quantized, tokenizer, outputs.path("model"))
    write_errors(errors, outputs.path("errors.csv"))
    worst = max(errors, key=lambda name: (errors[name], name))
    outputs.metrics(
        {
            "bits": params.bits,
            "tensors": len(errors),
            "quantized_parameter_share": sum(codes.numel() for codes, _ in quantized.values()) / model.num_parameters(),
            "bytes": {"before": weight_bytes(SOURCE), "after": after},
            "weight_error": {"mean": fmean(errors.values()), "worst": errors[worst], "worst_tensor": worst},
            "calibration": {"source": "traces" if TRACES.exists() else "random tokens", **predictions.compare()},
        },
        QuantizeMetrics,
    )


def write_errors(errors: dict[str, float], path: Path) -> None:
    """One row a tensor, in the model's order: tensor, relative_error (Frobenius)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tensor", "relative_error"])
        writer.writerows(errors.items())
