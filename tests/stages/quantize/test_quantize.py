import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file
from scipy.special import log_softmax
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from stages.quantize import divergence
from stages.quantize.calibration import calibration_examples
from stages.quantize.params import QuantizeParams
from stages.quantize.quantize import quantize
from stages.quantize.schemes import quantizable
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.core.params import load_params
from stages.shared.core.schemas import write_table
from stages.shared.lm.models import is_quantized, load_model, load_tokenizer, save_model, save_unquantized
from stages.shared.slates.layouts.marks import ASSISTANT, END, THINK, USER
from stages.shared.slates.traces import TRACES
from tests.support.tiny_models import random_prompts, tiny_folder

RESULT = Path("data/quantize")
BOTH = ["embeddings", "head"]


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
        quantize(QuantizeParams(**{"calibration_prompts": 4, "batch_size": 3, "group_size": 32} | params), outputs)
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
    assert metrics["bytes"]["bfloat16"] == 2 * load_model(Path("data/rl/model")).num_parameters()
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
    """KL and agreement of the model and of the folder as transformers loads it, one example at a time, with scipy's definition of both."""
    write_traces()
    for scheme, protect in (("w8a8", BOTH), ("int4", [])):
        metrics = run(scheme=scheme, protect=protect)["calibration"]
        model, other = load_model(Path("data/rl/model")), load_model(RESULT / "model")
        examples = calibration_examples(Path("data/traces/traces.parquet"), load_tokenizer(Path("data/rl/model")), 4, seed=7)
        rows: dict[str, list[np.ndarray]] = {"full": [], "quantized": []}
        for example in examples:
            places = [place for place, weight in enumerate(example.weights[1:]) if weight > 0]
            rows["full"].append(logits(model, [example.ids])[0].double().numpy()[places])
            rows["quantized"].append(logits(other, [example.ids])[0].double().numpy()[places])
        full, quantized = (np.concatenate(rows[name]) for name in ("full", "quantized"))
        p, q = log_softmax(full, axis=1), log_softmax(quantized, axis=1)
        assert metrics["tokens"] == len(full)
        assert metrics["kl"] == pytest.approx(np.mean((np.exp(p) * (p - q)).sum(1)), rel=1e-2), scheme
        assert metrics["mean_abs_logit_error"] == pytest.approx(np.abs(full - quantized).mean(), rel=1e-2), scheme
        assert metrics["top1_agreement"] == pytest.approx((full.argmax(1) == quantized.argmax(1)).mean(), abs=0.05), scheme


def test_calibration_reads_what_the_teacher_wrote(project):
    write_traces()
    tokenizer = load_tokenizer(Path("data/rl/model"))
    examples = calibration_examples(Path("data/traces/traces.parquet"), tokenizer, 4, seed=1)
    assert len(examples) == 4 and calibration_examples(Path("data/traces/traces.parquet"), tokenizer, 99, seed=1)[5]
    for example in examples:
        predicted = [token for token, weight in zip(example.ids, example.weights, strict=True) if weight > 0]
        assert tokenizer.decode(predicted).startswith(" 1 pattern:") and predicted[-1] == tokenizer.eos_token_id
    assert len(calibration_examples(Path("nothing.parquet"), tokenizer, 4, seed=1)) == 4


def tuned_model(folder: Path = Path("data/midtrain/model")) -> None:
    """What data/rl/model was fine-tuned from: a third of its weights moved."""
    model, tokenizer = load_model(Path("data/rl/model")), load_tokenizer(Path("data/rl/model"))
    torch.manual_seed(5)
    for weight in model.parameters():
        weight.data += 0.01 * torch.randn_like(weight) * (torch.rand_like(weight) < 1 / 3)
    save_model(model, tokenizer, folder)


@pytest.mark.parametrize("scheme", ["int4", "int3"])
def test_methods_that_read_prompts_are_nearer_than_rounding(project, scheme):
    tuned_model()
    write_traces(24)
    kl = {
        method: run(scheme=scheme, method=method, base="data/midtrain/model", calibration_prompts=24)["calibration"]["kl"]
        for method in ("rtn", "gptq", "awq", "quantlrm")
    }
    assert all(kl[method] < 0.95 * kl["rtn"] for method in ("gptq", "awq", "quantlrm")), kl


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scheme", ["int8", "w8a8", "int4", "int3"])
def test_every_scheme_loads_in_transformers(tmp_path, monkeypatch, scheme, tied):
    """Plain from_pretrained, embedding and head quantized: weights are codes times scales, as numpy reads them, and it generates."""
    monkeypatch.chdir(tmp_path)
    tiny_folder(Path("data/rl/model"), tied=tied)
    run(scheme=scheme, method="gptq", protect=[])
    model = AutoModelForCausalLM.from_pretrained(RESULT / "model", dtype=torch.float32)
    assert model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False).shape == (1, 7)  # it also unpacks the weights
    tensors = load_file(RESULT / "model/model.safetensors")
    bits = {"int8": 8, "w8a8": 8, "int4": 4, "int3": 3}[scheme]
    for name, module in [*quantizable(model).items(), ("model.embed_tokens", model.get_input_embeddings()), ("lm_head", model.lm_head)]:
        table = name in ("model.embed_tokens", "lm_head")
        scale = tensors[f"{name}.weight_scale"]
        if f"{name}.weight_packed" in tensors:
            width = 8 if table else bits
            packed = tensors[f"{name}.weight_packed"].view(np.uint32)
            codes = np.stack([packed >> (width * place) & (2**width - 1) for place in range(32 // width)], axis=2).astype(np.int64)
            codes = codes.reshape(len(packed), -1)[:, : tensors[f"{name}.weight_shape"][1]] - 2 ** (width - 1)
        else:
            codes = tensors["model.embed_tokens.weight" if table and tied else f"{name}.weight"]
            assert codes.dtype == np.int8
        expected = codes * scale.repeat(codes.shape[1] // scale.shape[1], axis=1)
        np.testing.assert_allclose(module.weight.detach().numpy(), expected, rtol=1e-6)


def test_shares_of_bfloat16(project):
    """The default profile's shape, whose embedding is 15 % of it: at most 55 % at 8 bits and 35 % at 4, with its tables at 8 bits."""
    config = LlamaConfig(
        vocab_size=1216,
        hidden_size=192,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        intermediate_size=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=0,
        eos_token_id=1,
    )
    save_model(LlamaForCausalLM(config), load_tokenizer(Path("data/rl/model")), Path("data/rl/model"))
    shares = {scheme: run(scheme=scheme, protect=[], group_size=64)["bytes"]["share_of_bfloat16"] for scheme in ("int8", "int4")}
    assert shares["int8"] < 0.55 and shares["int4"] < 0.35
    assert run(scheme="int8", protect=BOTH, dtype="bfloat16")["bytes"]["share_of_bfloat16"] > 0.55, (
        "protected, the tables alone are too much"
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"scheme": "int4", "group_size": 48},
            r"quantize\.group_size: 48 does not divide the 64 inputs of model\.layers\.0\.self_attn\.q_proj",
        ),
        ({"protect": ["head"]}, r"quantize\.protect: head: the head of this model is its embedding matrix itself"),
        ({"method": "quantlrm", "base": "data/rl/model"}, "same weights as the model itself"),
        ({"device": "cuda"}, r"quantize\.device: cuda"),
    ],
)
def test_what_cannot_be_done_is_said(project, params, message):
    if params.get("device") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(StageError, match=message):
        run(**params)
    assert not RESULT.exists()


def test_older_parameters_say_what_to_write(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("quantize: {bits: 8}\n")
    with pytest.raises(StageError, match=r"quantize\.bits: this key is gone; .*quantize\.scheme"):
        load_params("quantize", QuantizeParams, path)
    with pytest.raises(ValidationError):
        QuantizeParams(method="int8-weight")


def test_quantlrm_needs_the_model_before_fine_tuning():
    with pytest.raises(ValidationError, match="such as data/midtrain/model"):
        QuantizeParams(method="quantlrm")


def test_only_a_part_of_the_logits_exists_at_once(project, monkeypatch):
    write_traces(8)
    rows = []
    head = nn.Linear.forward

    def counted(self, inputs):
        if self.out_features > 128:  # the vocabulary
            rows.append(inputs.numel() // inputs.shape[-1])
        return head(self, inputs)

    monkeypatch.setattr(nn.Linear, "forward", counted)
    monkeypatch.setattr(divergence, "CHUNK", 5)
    metrics = run(calibration_prompts=8)
    assert max(rows) <= 5 and sum(rows) == 2 * metrics["calibration"]["tokens"], "each predicted token once in each model, and no others"
