import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from stages.quantize.calibration import Predictions, calibration_examples
from stages.quantize.checkpoint import quantizable
from stages.quantize.int8 import dequantize_weight, quantize_weight, relative_error
from stages.quantize.params import QuantizeParams
from stages.quantize.quantize import quantize
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.core.schemas import write_table
from stages.shared.lm.encoding import WeightedExample
from stages.shared.lm.models import is_quantized, load_model, load_tokenizer, save_model, save_unquantized
from stages.shared.slates.layouts.marks import ASSISTANT, END, THINK, USER
from stages.shared.slates.traces import TRACES
from tests.support.tiny_models import random_prompts, tiny_folder

RESULT = Path("data/quantize")


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_folder(Path("data/rl/model"))
    return tmp_path


def write_traces(count: int = 6) -> None:
    path = Path("data/traces/traces.parquet")
    path.parent.mkdir(parents=True)
    rows = [
        (n, n, n, [0], f"{USER}history: taste: co{n}{ASSISTANT}{THINK}", f" 1 pattern: s{n}", f" s{n}{END}", [1], [0], 0, 0, "rejection")
        for n in range(count)
    ]
    write_table(pl.DataFrame(rows, schema=TRACES, orient="row"), path, TRACES)


def run(**params: object) -> dict:
    with stage_outputs("quantize") as outputs:
        quantize(QuantizeParams(calibration_prompts=4, batch_size=3, **params), outputs)
    return read_json(RESULT / "metrics.json")


def logits(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor(ids)).logits


def unpacked(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales of a tensor read from the file by numpy: byte k of an int32 is code k of the row, plus 128."""
    tensors = load_file(folder / "model.safetensors")
    packed, shape = tensors[f"{name}.weight_packed"], tensors[f"{name}.weight_shape"]
    codes = np.ascontiguousarray(packed).view(np.uint8).astype(np.int64) - 128
    return codes[:, : shape[1]], tensors[f"{name}.weight_scale"].astype(np.float64)


def test_every_weight_is_off_by_half_a_scale_at_most(project):
    run()
    source = load_model(Path("data/rl/model"))
    for name, layer in quantizable(source).items():
        weight = layer.weight.detach().numpy().astype(np.float64)
        codes, scale = unpacked(RESULT / "model", name)
        assert codes.shape == weight.shape and scale.shape == (len(weight), 1)
        np.testing.assert_allclose(scale[:, 0], np.abs(weight).max(axis=1) / 127, rtol=1e-6)
        assert (np.abs(codes * scale - weight) <= scale / 2 * (1 + 1e-5)).all()


def test_reload_gives_the_logits_of_the_rounded_model(project):
    run()
    source = load_model(Path("data/rl/model"))
    prompts = [prompt[:20] for prompt in random_prompts(5, 300)]
    full = logits(source, prompts)
    for name, layer in quantizable(source).items():
        codes, scale = unpacked(RESULT / "model", name)
        layer.weight.data = torch.from_numpy(codes.astype(np.float32) * scale.astype(np.float32))
    expected = logits(source, prompts)
    assert torch.equal(logits(load_model(RESULT / "model"), prompts), expected)
    plain = AutoModelForCausalLM.from_pretrained(RESULT / "model", dtype=torch.float32, use_safetensors=True).eval()
    assert torch.equal(logits(plain, prompts), expected)
    assert 0 < (full - expected).abs().mean() < 0.05 * full.std()


def test_spelt_out_copy_gives_the_same_logits(project):
    run()
    save_unquantized(RESULT / "model", Path("copy"))
    assert is_quantized(RESULT / "model") and not is_quantized(Path("copy"))
    prompts = [prompt[:20] for prompt in random_prompts(5, 300)]
    assert torch.equal(logits(load_model(Path("copy")), prompts), logits(load_model(RESULT / "model"), prompts))


@pytest.mark.parametrize("tied", [True, False])
def test_head_and_embeddings_stay_as_they_are(tmp_path, monkeypatch, tied):
    monkeypatch.chdir(tmp_path)
    tiny_folder(Path("data/rl/model"), tied=tied)
    run()
    before, after = load_model(Path("data/rl/model")), load_model(RESULT / "model")
    logits(after, [[5]])
    assert torch.equal(after.get_input_embeddings().weight, before.get_input_embeddings().weight)
    assert torch.equal(after.get_output_embeddings().weight, before.get_output_embeddings().weight)


def test_metrics_and_errors(project):
    write_traces()
    metrics = run()
    assert metrics["bits"] == 8 and metrics["tensors"] == 14  # seven matrices a layer, two layers
    assert metrics["bytes"]["after"] < metrics["bytes"]["before"]
    quantized = metrics["quantized_parameter_share"] * load_model(Path("data/rl/model")).num_parameters()
    assert metrics["bytes"]["before"] - metrics["bytes"]["after"] == pytest.approx(3 * quantized, rel=0.15)
    assert metrics["calibration"]["source"] == "traces" and metrics["calibration"]["tokens"] > 0
    assert metrics["calibration"]["top1_agreement"] > 0.8 and 0 <= metrics["calibration"]["kl"] < 0.1
    with (RESULT / "errors.csv").open(encoding="utf-8") as file:
        errors = {row["tensor"]: float(row["relative_error"]) for row in csv.DictReader(file)}
    assert len(errors) == 14
    assert metrics["weight_error"]["worst"] == errors[metrics["weight_error"]["worst_tensor"]] == max(errors.values())
    assert metrics["weight_error"]["mean"] == pytest.approx(np.mean(list(errors.values())))


def test_two_runs_give_the_same_bytes(project):
    def everything() -> dict[str, bytes]:
        run()
        return {str(path): path.read_bytes() for path in sorted(RESULT.glob("**/*")) if path.is_file()}

    assert everything() == everything()


def test_quantized_folder_says_what_it_is(project):
    run()
    config = json.loads((RESULT / "model/config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["format"], config["ignore"]) == ("compressed-tensors", "pack-quantized", ["lm_head"])
    assert load_tokenizer(RESULT / "model").get_vocab() == load_tokenizer(Path("data/rl/model")).get_vocab()


def test_weights_that_are_not_numbers_are_named(project):
    source = load_model(Path("data/rl/model"))
    source.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("nan")
    save_model(source, load_tokenizer(Path("data/rl/model")), Path("data/rl/model"))
    with pytest.raises(StageError, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN"):
        run()
    assert not RESULT.exists()


def test_predictions_are_compared_as_a_reference_does(project):
    """KL and agreement of two models, one example at a time, with scipy's definition of both."""
    from scipy.special import log_softmax

    model, other = load_model(Path("data/rl/model")), load_model(tiny_folder(project / "other", seed=3))
    rng = np.random.default_rng(0)
    examples = [WeightedExample(ids, rng.integers(0, 2, len(ids)).astype(float).tolist()) for ids in random_prompts(5, 300)]
    predictions = Predictions(model, examples, batch_size=2)
    rows_full, rows_other = [], []
    for example in examples:
        full, quantized = (logits(one, [example.ids])[0].double().numpy() for one in (model, other))
        places = [place for place, weight in enumerate(example.weights[1:]) if weight > 0]
        rows_full.append(full[places])
        rows_other.append(quantized[places])
    model.load_state_dict(other.state_dict())
    got = predictions.compare()
    full, quantized = np.concatenate(rows_full), np.concatenate(rows_other)
    p, q = log_softmax(full, axis=1), log_softmax(quantized, axis=1)
    assert got["tokens"] == len(full)
    assert got["kl"] == pytest.approx(np.mean((np.exp(p) * (p - q)).sum(1)), rel=1e-4)
    assert got["mean_abs_logit_error"] == pytest.approx(np.abs(full - quantized).mean(), rel=1e-4)
    assert got["top1_agreement"] == pytest.approx((full.argmax(1) == quantized.argmax(1)).mean())


def test_calibration_reads_what_the_teacher_wrote(project):
    write_traces()
    tokenizer = load_tokenizer(Path("data/rl/model"))
    examples = calibration_examples(Path("data/traces/traces.parquet"), tokenizer, 4, seed=1)
    assert len(examples) == 4 and calibration_examples(Path("data/traces/traces.parquet"), tokenizer, 99, seed=1)[5]
    for example in examples:
        predicted = [token for token, weight in zip(example.ids, example.weights, strict=True) if weight > 0]
        assert tokenizer.decode(predicted).startswith(" 1 pattern:") and predicted[-1] == tokenizer.eos_token_id
    assert len(calibration_examples(Path("nothing.parquet"), tokenizer, 4, seed=1)) == 4


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([1e-30, 1e-3, 1.0, 1e6]))
@settings(max_examples=60)
def test_rounding_properties(rows, columns, seed, size):
    weight = torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32) * size)
    codes, scale = quantize_weight(weight)
    restored = dequantize_weight(codes, scale)
    assert codes.abs().max() <= 127 and (codes.abs().amax(1) == 127).all()
    assert ((restored - weight).abs() <= scale * 0.5001).all()
    again, scale_again = quantize_weight(restored)
    assert torch.equal(again, codes) and torch.allclose(scale_again, scale, rtol=1e-6, atol=0)
    assert torch.equal(quantize_weight(-weight)[0], -codes)
    assert relative_error(weight, restored) < 0.01 * columns**0.5


def test_zeros_stay_zeros():
    weight = torch.zeros(2, 5)
    weight[1, 2] = 3.0
    restored = dequantize_weight(*quantize_weight(weight))
    assert torch.equal(restored, weight) and relative_error(torch.zeros(2, 2), torch.zeros(2, 2)) == 0
