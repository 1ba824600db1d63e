"""The stage as a whole, with the packaged model where its own figures matter."""

import hashlib

import numpy as np
import pytest

from stages.embed.encode import encode
from stages.embed.model import model_folder
from stages.embed.params import PACKAGED, EmbedParams
from stages.embed.vectors import check_not_constant, mean_cosine, normalise
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json
from stages.shared.core.resume import ResumePoints
from tests.support.embed_data import by_hand, run, sentences, tiny_text_model, write_items

TEXTS = [
    "Toy Story (1995). Genres: Animation, Children's, Comedy.",
    "Heat (1995). Genres: Action, Crime, Thriller.",
    "Les Misérables (1995). Genres: Drama, Musical.",
    "unkonwn.",
    "A Bug's Life (1998). Genres: Animation, Children's, Comedy, a longer text that fills its batch with padding.",
]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_text_model(tmp_path / "tiny")
    return tmp_path


def test_packaged_model_equals_its_card_in_the_order_given(tmp_path):
    """all-MiniLM-L6-v2: the mean over tokens, then length 1."""
    folder = model_folder(PACKAGED)
    vectors = encode(TEXTS, folder, EmbedParams(batch_size=2), ResumePoints("embed", "k", tmp_path))
    assert vectors.dtype == np.float32 and vectors.shape == (5, 384)
    np.testing.assert_allclose(vectors, by_hand(TEXTS, folder, "mean"), atol=2e-6)


def test_the_stage_writes_the_same_bytes_twice_and_keeps_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_items(tmp_path, TEXTS)
    out = tmp_path / "data/embed"
    run(EmbedParams(save_seconds=0, batch_size=2))
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    run(EmbedParams(batch_size=2))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert sorted(first) == ["embeddings.npy", "metrics.json"]
    metrics = read_json(out / "metrics.json")
    assert (metrics["items"], metrics["dim"], metrics["model"]["name"]) == (5, 384, "packaged-minilm")
    assert "collaborative" not in metrics and not list((tmp_path / ".gr2/resume").iterdir())


def test_a_folder_model_is_used_from_its_folder(project):
    write_items(project, sentences(3))
    run(EmbedParams(model="tiny", pooling="last"))
    weights = hashlib.sha256(hashlib.sha256((project / "tiny/model.safetensors").read_bytes()).digest()).hexdigest()
    metrics = read_json(project / "data/embed/metrics.json")
    assert metrics["model"] == {"name": "tiny", "sha256": weights, "dtype": "float32"}
    np.testing.assert_allclose(np.load(project / "data/embed/embeddings.npy"), by_hand(sentences(3), project / "tiny", "last"), atol=2e-6)


@pytest.mark.parametrize("text", [None, "", "  "])
def test_an_item_without_text_is_named(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    write_items(tmp_path, [TEXTS[0], text])
    with pytest.raises(StageError, match=r"item 1 \(source id 's1'\) has no text"):
        run(EmbedParams())
    assert list((tmp_path / "data").iterdir()) == [tmp_path / "data/ingest"]


def test_texts_that_are_all_the_same(project):
    write_items(project, ["old film"] * 4)
    with pytest.raises(StageError, match=r"items\.parquet: all 4 items have the same text 'old film'; give them titles"):
        run(EmbedParams(model="tiny", pooling="mean"))
    assert not (project / "data/embed").exists()


def test_a_model_that_sees_nothing_of_the_texts(project):
    """Two tokens leave the first word and the end; here the first word is always the same."""
    write_items(project, [f"the {text}" for text in sentences(5)])
    with pytest.raises(StageError, match=r"all 5 items have the same embedding though their texts differ; check .*max_tokens"):
        run(EmbedParams(model="tiny", pooling="last", max_tokens=2))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_useless_vector_is_named(bad):
    vectors = np.ones((4, 3), dtype=np.float32)
    vectors[2] = bad
    with pytest.raises(StageError, match=r"item 2: its embedding is zero or not finite \(1 such items\)"):
        normalise(vectors)


def test_one_item_and_two_that_differ_a_little_are_no_constant():
    check_not_constant(np.ones((1, 3), dtype=np.float32), ["a"])
    check_not_constant(normalise(np.array([[1, 0], [1, 1e-4]], dtype=np.float32)), ["a", "b"])


def test_mean_cosine_by_hand():
    vectors = normalise(np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))
    pairs = [vectors[a] @ vectors[b] for a in range(9) for b in range(9) if a != b]
    assert mean_cosine(vectors) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert mean_cosine(vectors[:1]) == 0.0
