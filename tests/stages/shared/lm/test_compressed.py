"""Which quantized folders vLLM reads as they are, and what of the others is spelt out."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from stages.quantize.params import QuantizeParams
from stages.quantize.quantize import quantize
from stages.shared.core.outputs import stage_outputs
from stages.shared.lm.compressed import spell_out_tables, to_spell_out, vllm_folder
from stages.shared.lm.models import is_quantized
from tests.support.tiny_models import random_prompts, tiny_folder


def quantized(tied: bool = True, **params: object) -> Path:
    tiny_folder(Path("data/rl/model"), tied=tied)
    with stage_outputs("quantize") as outputs:
        quantize(QuantizeParams(calibration_prompts=2, group_size=32, **params), outputs)
    return Path("data/quantize/model")


@pytest.mark.parametrize(
    ("scheme", "protect", "expected"),
    [
        # (a CPU in float32, a CPU in bfloat16, a GPU)
        ("int8", ["embeddings", "head"], ("all", "all", "nothing")),
        ("w8a8", ["embeddings", "head"], ("nothing", "nothing", "nothing")),
        ("int4", ["embeddings", "head"], ("all", "nothing", "nothing")),
        ("int3", ["embeddings", "head"], ("all", "all", "all")),
        ("int8", [], ("all", "all", "tables")),
        ("w8a8", [], ("tables", "tables", "tables")),
        ("int4", [], ("all", "tables", "tables")),
    ],
)
def test_what_is_spelt_out(tmp_path, monkeypatch, scheme, protect, expected):
    monkeypatch.chdir(tmp_path)
    folder = quantized(scheme=scheme, protect=protect)
    asked = [("float32", True), ("bfloat16", True), ("bfloat16", False)]
    monkeypatch.setattr("stages.shared.lm.compressed.sums_integers", lambda: True)
    assert tuple(to_spell_out(folder, dtype, on_cpu) for dtype, on_cpu in asked) == expected


def test_integers_that_a_cpu_does_not_add_up_exactly_are_spelt_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("stages.shared.lm.compressed.sums_integers", lambda: False)
    folder = quantized(scheme="w8a8", protect=[])
    assert [to_spell_out(folder, "float32", on_cpu) for on_cpu in (True, False)] == ["all", "tables"]


def test_sizes_that_the_kernel_does_not_take(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = quantized(scheme="int4")
    monkeypatch.setattr("stages.shared.lm.compressed.CPU_MULTIPLE", 64)  # of 96 inputs
    assert to_spell_out(folder, "bfloat16", on_cpu=True) == "all"


def test_other_models(tmp_path):
    """Not quantized; and quantized by something else, which a GPU may know."""
    folder = tiny_folder(tmp_path / "model")
    assert [to_spell_out(folder, "float32", on_cpu) for on_cpu in (True, False)] == ["nothing", "nothing"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    assert [to_spell_out(folder, "float32", on_cpu) for on_cpu in (True, False)] == ["all", "nothing"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scheme", ["int4", "w8a8"])
def test_tables_spelt_out_give_the_same_logits(tmp_path, monkeypatch, scheme, tied):
    monkeypatch.chdir(tmp_path)
    folder = quantized(tied=tied, scheme=scheme, protect=[])
    ids = torch.tensor([prompt[:20] for prompt in random_prompts(4, 300)])
    spell_out_tables(folder, Path("copy"))
    logits = [AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()(ids).logits for name in (folder, "copy")]
    assert torch.equal(*logits) and is_quantized(Path("copy"))


@pytest.mark.parametrize("scheme", ["int8", "int3"])
def test_all_spelt_out_gives_the_same_logits(tmp_path, monkeypatch, scheme):
    monkeypatch.chdir(tmp_path)
    folder = quantized(scheme=scheme, protect=[])
    ids = torch.tensor([prompt[:20] for prompt in random_prompts(4, 300)])
    with vllm_folder(folder, "float32", on_cpu=True) as copy:
        logits = [AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()(ids).logits for name in (folder, copy)]
        assert torch.equal(*logits) and not is_quantized(copy)


def test_a_copy_is_gone_afterwards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = quantized(scheme="int3")
    with vllm_folder(folder, "float32", on_cpu=True) as copy:
        assert copy != folder and not is_quantized(copy)
    assert not copy.exists()
    plain = Path("data/rl/model")
    with vllm_folder(plain, "float32", on_cpu=True) as same:
        assert same == plain
    assert plain.exists()
