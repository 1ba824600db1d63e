"""Pooling, padding, length, precision and refusals, on tiny random models against one text at a time."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.embed import model as text_model
from stages.embed.encode import encode
from stages.embed.model import device_of, dtype_of, model_folder
from stages.embed.params import EmbedParams
from stages.shared.core.errors import StageError
from stages.shared.core.params import validate_section
from stages.shared.core.resume import ResumePoints
from tests.support.embed_data import TINY, by_hand, sentences, tiny_text_model
from tests.support.raw_tables import FEW

TEXTS = sentences(11)


def vectors_of(folder, texts=TEXTS, **params) -> np.ndarray:
    return encode(texts, folder, EmbedParams(**{"batch_size": 4, **params}), ResumePoints("embed", "k", folder / "resume"))


def sentence_transformer(folder, pooling: str, padding: str = "left"):
    """A sentence-transformers folder as Qwen3-Embedding's is: tokens, pooling, length 1; padding on the left."""
    # Here: every test process imports this file, one runs it, and these take seconds.
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer

    tokens = Transformer(str(tiny_text_model(folder / "plain", padding=padding)))
    modules = [tokens, Pooling(tokens.get_embedding_dimension(), pooling), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder / "st"), create_model_card=False)
    return folder / "st"


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("family", sorted(TINY))
def test_a_plain_folder_equals_each_text_alone(tmp_path, family, pooling, padding):
    folder = tiny_text_model(tmp_path, family, padding)
    found = vectors_of(model_folder(str(folder)), pooling=pooling)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(TEXTS, folder, pooling), atol=5e-6)


def test_a_sentence_transformers_folder_pools_as_it_says_unless_told_otherwise(tmp_path):
    folder = sentence_transformer(tmp_path, "lasttoken")
    np.testing.assert_allclose(vectors_of(folder), by_hand(TEXTS, tmp_path / "plain", "last"), atol=5e-6)
    np.testing.assert_allclose(vectors_of(folder, pooling="mean"), by_hand(TEXTS, tmp_path / "plain", "mean"), atol=5e-6)


def test_instruction_stands_before_every_text_to_the_letter(tmp_path):
    folder = tiny_text_model(tmp_path)
    instruction = "instruct the item \n query "
    found = vectors_of(folder, pooling="last", instruction=instruction)
    np.testing.assert_allclose(found, by_hand([instruction + text for text in TEXTS], folder, "last"), atol=5e-6)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_max_tokens_cuts_and_keeps_the_end_token(tmp_path, pooling):
    folder = tiny_text_model(tmp_path)
    found = vectors_of(folder, pooling=pooling, max_tokens=6)
    np.testing.assert_allclose(found, by_hand(TEXTS, folder, pooling, max_tokens=6), atol=5e-6)
    assert not np.allclose(found, by_hand(TEXTS, folder, pooling), atol=1e-2)


def test_a_text_longer_than_the_model_is_cut_at_its_positions(tmp_path):
    folder = tiny_text_model(tmp_path)
    texts = [" ".join(str(word) for word in range(200)), "toy story"]
    np.testing.assert_allclose(vectors_of(folder, texts, pooling="last"), by_hand(texts, folder, "last", 64), atol=5e-6)


def test_more_tokens_than_positions_is_refused(tmp_path):
    with pytest.raises(StageError, match=r"max_tokens: 65, but .* has 64 positions; lower it"):
        vectors_of(tiny_text_model(tmp_path), pooling="last", max_tokens=65)


def test_a_tokenizer_without_a_pad_token(tmp_path):
    folder = tiny_text_model(tmp_path, pad_token=None)
    np.testing.assert_allclose(vectors_of(folder, pooling="last"), by_hand(TEXTS, folder, "last"), atol=5e-6)


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_half_precision_is_close_and_stored_as_float32_of_length_1(tmp_path, pooling):
    folder = tiny_text_model(tmp_path)
    found = vectors_of(folder, pooling=pooling, dtype="bfloat16")
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert (found * by_hand(TEXTS, folder, pooling)).sum(axis=1).min() > 0.98


def test_auto_is_bfloat16_on_a_gpu_and_float32_on_a_cpu(monkeypatch, bfloat16_kernels):
    for gpu, device, expected in [
        (False, "auto", ("cpu", "float32")),
        (True, "auto", ("cuda", "bfloat16")),
        (True, "cpu", ("cpu", "float32")),
    ]:
        monkeypatch.setattr(text_model.torch.cuda, "is_available", lambda gpu=gpu: gpu)
        params = EmbedParams(device=device)
        assert (device_of(params), dtype_of(params)) == expected
        assert dtype_of(EmbedParams(device=device, dtype="float16")) == "float16"


def test_what_a_cpu_does_not_multiply_in_is_float32(monkeypatch):
    monkeypatch.setattr("stages.shared.core.device.multiplies_in", lambda dtype, where="auto": dtype == "float32")
    assert dtype_of(EmbedParams(device="cpu", dtype="bfloat16")) == "float32"


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(text_model.torch.cuda, "is_available", lambda: False)
    with pytest.raises(StageError, match=r"embed\.device: cuda, but torch finds no GPU here; set it to auto or cpu"):
        device_of(EmbedParams(device="cuda"))


def test_a_plain_folder_must_be_told_how_to_pool(tmp_path):
    with pytest.raises(StageError, match=r"plain transformers folder .* set embed\.pooling to last .* or mean"):
        vectors_of(tiny_text_model(tmp_path))


def test_unknown_pooling_in_params_and_in_the_folder(tmp_path):
    with pytest.raises(StageError, match=r"p\.yaml: embed\.pooling: .*'auto', 'mean' or 'last'.*got 'median'"):
        validate_section("embed", EmbedParams, {"pooling": "median"}, "p.yaml")
    folder = sentence_transformer(tmp_path, "mean")
    config = folder / "1_Pooling/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "pooling_mode": "median"}))
    with pytest.raises(StageError, match=r"cannot load this model: .*median"):
        vectors_of(folder)


def test_pooling_asked_of_a_folder_that_has_none(tmp_path):
    folder = sentence_transformer(tmp_path, "mean")
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:1]))
    with pytest.raises(StageError, match="no Pooling module to set to last"):
        vectors_of(folder, pooling="last")


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(StageError, match=r"no modules\.json, no config\.json.*hf download"):
        model_folder(str(tmp_path))


def test_pickled_weights_are_refused(tmp_path):
    folder = tiny_text_model(tmp_path)
    weights = folder / "model.safetensors"
    torch.save({}, folder / "pytorch_model.bin")
    assert model_folder(str(folder)) == folder, "beside safetensors nobody reads them"
    weights.unlink()
    with pytest.raises(StageError, match=r"pytorch_model\.bin: pickled weights, which are never loaded; put .*\.safetensors"):
        model_folder(str(folder))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(StageError, match="no weights there"):
        model_folder(str(folder))


def test_pickled_weights_of_one_module_are_refused(tmp_path):
    folder = sentence_transformer(tmp_path, "mean")
    (folder / "2_Dense").mkdir()
    torch.save({}, folder / "2_Dense/pytorch_model.bin")
    with pytest.raises(StageError, match=r"2_Dense.pytorch_model\.bin: pickled weights"):
        model_folder(str(folder))


def test_weights_cut_short(tmp_path):
    folder = tiny_text_model(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(StageError, match="cannot load this model"):
        vectors_of(folder, pooling="mean")


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_the_folder_never_runs(tmp_path, plain):
    folder = tiny_text_model(tmp_path / "m") if plain else sentence_transformer(tmp_path, "mean")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    if plain:
        auto_map = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": auto_map}))
    else:
        modules = json.loads((folder / "modules.json").read_text())
        modules[1]["type"] = "evil.Evil"
        (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(StageError, match="cannot load this model"):
        vectors_of(folder, pooling="mean")
    assert not (tmp_path / "ran").exists()


def test_a_moved_folder_is_the_same_model_and_another_vocabulary_is_not(tmp_path):
    folder = tiny_text_model(tmp_path / "a")
    before = text_model.settings_sha256(folder), text_model.weights_sha256(folder)
    moved = shutil.move(folder, tmp_path / "b")
    assert (text_model.settings_sha256(moved), text_model.weights_sha256(moved)) == before
    vocabulary = moved / "tokenizer.json"
    vocabulary.write_text(vocabulary.read_text().replace('"drama"', '"Drama"'))
    assert text_model.settings_sha256(moved) != before[0] and text_model.weights_sha256(moved) == before[1]


@FEW
@given(beyond=st.integers(0, 10**6), data=st.data())
def test_a_tokenizer_with_ids_beyond_the_embedding_table_is_refused(tmp_path_factory, beyond, data):
    """Of any of its words, by one or by many."""
    folder = tiny_text_model(tmp_path_factory.mktemp("beyond"))
    vocabulary = folder / "tokenizer.json"
    document = json.loads(vocabulary.read_text())
    rows = json.loads((folder / "config.json").read_text())["vocab_size"]
    words = document["model"]["vocab"]
    words[data.draw(st.sampled_from(sorted(words)))] = rows + beyond
    vocabulary.write_text(json.dumps(document))
    with pytest.raises(StageError, match=rf"its tokenizer has ids up to {rows + beyond}, its model {rows} rows"):
        vectors_of(folder, pooling="mean")
