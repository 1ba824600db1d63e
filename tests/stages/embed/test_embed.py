import hashlib

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from stages.embed.embed import embed, encode, mean_cosine, model_folder, normalise
from stages.embed.params import PACKAGED, EmbedParams
from stages.shared.errors import StageError
from stages.shared.outputs import read_json, stage_outputs
from stages.shared.tables import ITEMS

TEXTS = [
    "Toy Story (1995). Genres: Animation, Children's, Comedy.",
    "Heat (1995). Genres: Action, Crime, Thriller.",
    "Les Misérables (1995). Genres: Drama, Musical.",
    "unkonwn.",
    "A Bug's Life (1998). Genres: Animation, Children's, Comedy, a longer text that fills its batch with padding.",
]


def by_hand(texts: list[str]) -> np.ndarray:
    """all-MiniLM-L6-v2 as its card has it: mean over tokens, then length 1; one text at a time, no padding."""
    folder = model_folder(PACKAGED)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        with torch.no_grad():
            vector = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()
        vectors.append(vector / np.linalg.norm(vector))
    return np.stack(vectors)


def write_items(project, texts):
    (project / "data" / "ingest").mkdir(parents=True, exist_ok=True)
    rows = [(item, f"s{item}", "title", "", [], None, text) for item, text in enumerate(texts)]
    pl.DataFrame(rows, schema=ITEMS, orient="row").write_parquet(project / "data" / "ingest" / "items.parquet")


def run(params: EmbedParams) -> None:
    with stage_outputs("embed") as outputs:
        embed(params, outputs)


def test_encode_equals_the_model_by_hand_in_the_order_given():
    vectors = encode(TEXTS, model_folder(PACKAGED), EmbedParams(batch_size=2))
    assert vectors.dtype == np.float32 and vectors.shape == (5, 384)
    np.testing.assert_allclose(vectors, by_hand(TEXTS), atol=2e-6)


def test_instruction_is_put_before_every_text():
    vectors = encode(TEXTS, model_folder(PACKAGED), EmbedParams(instruction="Represent this film: "))
    np.testing.assert_allclose(vectors, by_hand([f"Represent this film: {text}" for text in TEXTS]), atol=2e-6)


def test_half_precision_is_close_and_still_stored_as_float32():
    vectors = encode(TEXTS, model_folder(PACKAGED), EmbedParams(dtype="bfloat16"))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (vectors * by_hand(TEXTS)).sum(axis=1).min() > 0.99


def test_the_stage_writes_the_same_bytes_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_items(tmp_path, TEXTS)
    out = tmp_path / "data" / "embed"
    run(EmbedParams())
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    run(EmbedParams())
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert sorted(first) == ["embeddings.npy", "metrics.json"]
    metrics = read_json(out / "metrics.json")
    assert (metrics["items"], metrics["dim"], metrics["model"]["name"]) == (5, 384, PACKAGED)


def test_a_folder_model_is_used_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_items(tmp_path, TEXTS[:2])
    (tmp_path / "minilm").symlink_to(model_folder(PACKAGED))
    run(EmbedParams(model="minilm"))
    metrics = read_json(tmp_path / "data" / "embed" / "metrics.json")
    weights = hashlib.sha256(hashlib.sha256((tmp_path / "minilm" / "model.safetensors").read_bytes()).digest()).hexdigest()
    assert metrics["model"] == {"name": "minilm", "sha256": weights}


@pytest.mark.parametrize("text", [None, "", "  "])
def test_an_item_without_text_is_named(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    write_items(tmp_path, [TEXTS[0], text])
    with pytest.raises(StageError, match=r"item 1 \(source id 's1'\) has no text"):
        run(EmbedParams())
    assert list((tmp_path / "data").iterdir()) == [tmp_path / "data" / "ingest"]


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(StageError, match=r"no modules.json.*hf download"):
        model_folder(str(tmp_path))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_useless_vector_is_named(bad):
    vectors = np.ones((4, 3), dtype=np.float32)
    vectors[2] = bad
    with pytest.raises(StageError, match=r"item 2: its embedding is zero or not finite \(1 such items\)"):
        normalise(vectors)


def test_mean_cosine_by_hand():
    vectors = normalise(np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32))
    pairs = [vectors[a] @ vectors[b] for a in range(9) for b in range(9) if a != b]
    assert mean_cosine(vectors) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert mean_cosine(vectors[:1]) == 0.0
