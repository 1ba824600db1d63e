"""The exported CrossEncoder against one pass itself, as the library loads it; the prompts of a file of requests; and what is refused."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from stages.quantize.params import QuantizeParams
from stages.quantize.quantize import quantize
from stages.serve import export
from stages.serve.cross_encoder import as_classifier, check_cross_encoder
from stages.serve.export import export_cross_encoder, export_prompts
from stages.serve.requests import RankRequest
from stages.serve.reranker import MODEL, open_reranker
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from stages.shared.lm.models import save_model
from tests.support.retrieve_project import own_items
from tests.support.tiny_models import tiny_tokenizer

ROWS = [{"id": f"q{user}", "user_id": f"u{user}", "candidates": [str(item) for item in range(user, user + 5)]} for user in range(6)]
ROWS.append({"id": "short", "user_id": "u3", "candidates": ["20", "stranger", "21", "20"]})
ROWS.append({"id": "nobody", "user_id": "x", "candidates": ["1"]})


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "encoder"
    assert export_cross_encoder(MODEL, folder) < 1e-4
    return folder


@pytest.fixture(scope="module")
def requests(finished_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("requests") / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_scores_and_orders_are_those_of_one_pass(exported, requests, one_pass, tmp_path):
    """Through files alone: the folder, and the prompts of the requests."""
    from sentence_transformers import CrossEncoder

    assert export_prompts(requests, tmp_path / "prompts.jsonl", MODEL, "source") == 7
    lines = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    encoder = CrossEncoder(str(exported), device="cpu", local_files_only=True)
    assert list(encoder.model.config.id2label.values()) == list("ABCDE") and encoder.num_labels == 5
    scores_NK = encoder.predict([(line["prompt"], "") for line in lines[:7]], batch_size=3, apply_softmax=True)
    asked = [RankRequest(own_items(user), list(range(user, user + 5))) for user in range(6)]
    rankings, expected_NK = one_pass.model.rank(one_pass.maker.slates(asked))
    assert np.abs(scores_NK[:6] - expected_NK).max() < 1e-4
    assert np.argsort(-scores_NK[:6], axis=1, kind="stable").tolist() == rankings.orders.tolist()
    assert len({tuple(order) for order in rankings.orders.tolist()}) > 1
    short = one_pass.rank([RankRequest(own_items(3), [20, None, 21, 20])])[0].order
    by_letter = [lines[6]["places"][letter] for letter in np.argsort(-scores_NK[6], kind="stable")]
    assert [place for places in by_letter for place in places] == [place for place in short if place != 1], "the stranger is in no prompt"
    assert (lines[7]["prompt"], lines[7]["fallback"]) == (None, "unknown_user")


def test_a_model_by_whose_type_the_library_would_split_words_otherwise(finished_run, tmp_path):
    """qwen2, as mid-training makes it: AutoTokenizer alone puts Qwen's splitting in place of what tokenizer.json says."""
    tokenizer, model = tiny_tokenizer(), tmp_path / "model"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
    config = Qwen2Config(
        vocab_size=len(tokenizer), tie_word_embeddings=True, initializer_range=0.2, pad_token_id=0, eos_token_id=1, **sizes
    )
    save_model(Qwen2ForCausalLM(config), tokenizer, model)
    assert AutoTokenizer.from_pretrained(model)(" s12")["input_ids"] != tokenizer(" s12")["input_ids"], "else this tests nothing"
    assert export_cross_encoder(model, tmp_path / "encoder") < 1e-4


def test_the_folder_is_an_ordinary_one(exported):
    names = {path.name for path in exported.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "modules.json", "README.md"} <= names
    assert not any(name.endswith(".py") for name in names)
    assert json.loads((exported / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]
    assert {path.name for path in exported.parent.iterdir()} == {exported.name}, "nothing is left beside it"


def test_one_that_ranks_otherwise_is_not_published(finished_run, one_pass, tmp_path, monkeypatch):
    """Here for the letters of other candidates; in life for a tokenizer that the library reads otherwise."""
    real = as_classifier

    def turned(model, size):
        found = real(model, size)
        found.score.weight.data = found.score.weight.data.flip(0)
        return found

    monkeypatch.setattr("stages.serve.cross_encoder.as_classifier", turned)
    with pytest.raises(StageError, match=r"differ by up to .* from those of one pass"):
        export_cross_encoder(MODEL, tmp_path / "encoder")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_named(exported, requests, one_pass, tmp_path):
    with pytest.raises(StageError, match="encoder: there is something already"):
        export_cross_encoder(MODEL, exported)
    assert check_cross_encoder(one_pass.model, one_pass.maker.slates([RankRequest([3, 4], [20, 21])]), exported) < 1e-4, "it stays"
    (tmp_path / "long.jsonl").write_text(json.dumps({"user_id": "u3", "candidates": [str(item) for item in range(20)]}))
    with pytest.raises(StageError, match="line 1: 20 candidates, and a prompt shows 5"):
        export_prompts(tmp_path / "long.jsonl", tmp_path / "out.jsonl", MODEL, "source")
    assert [path.name for path in tmp_path.iterdir()] == ["long.jsonl"]
    with pytest.raises(SystemExit, match=r"gr2 export: .*none.jsonl: no such file"):
        export.main(["prompts", str(tmp_path / "none.jsonl")])


@pytest.mark.parametrize(
    ("scheme", "protect", "dtype"),
    [
        ("int8", ["embeddings", "head"], "float32"),
        ("int4", [], "float32"),
        ("w8a8", [], "float16"),
    ],
)
def test_a_quantized_model_is_exported_with_its_weights_spelt_out(requests, tmp_path, scheme, protect, dtype):
    """Against one pass with the quantized folder itself, as transformers reads it; w8a8 rounds inputs as well, which is left out then."""
    from sentence_transformers import CrossEncoder

    params = QuantizeParams(scheme=scheme, protect=protect, dtype=dtype, group_size=32, calibration_prompts=2)
    with stage_outputs("quantize", tmp_path / "made") as outputs:
        quantize(params, outputs)
    quantized = tmp_path / "made/quantize/model"
    assert export_cross_encoder(quantized, tmp_path / "encoder") < 1e-3
    assert export_prompts(requests, tmp_path / "prompts.jsonl", quantized, "source") == 7
    lines = [json.loads(line) for line in (tmp_path / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    encoder = CrossEncoder(str(tmp_path / "encoder"), device="cpu", local_files_only=True)
    scores_NK = encoder.predict([(line["prompt"], "") for line in lines[:6]], apply_softmax=True)
    with open_reranker(quantized, "one-pass") as of_quantized, open_reranker(MODEL, "one-pass") as of_full:
        slates = of_full.maker.slates([RankRequest(own_items(user), list(range(user, user + 5))) for user in range(6)])
        expected_NK, full_NK = (one.model.rank(slates)[1] for one in (of_quantized, of_full))
    assert np.abs(scores_NK - expected_NK).max() < (0.1 if scheme == "w8a8" else 1e-5)
    assert np.abs(scores_NK - full_NK).max() > 1e-4, "else it would be the full model that is exported"
    assert "quantization_config" not in json.loads((tmp_path / "encoder/config.json").read_text())
