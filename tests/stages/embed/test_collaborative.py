"""Item vectors from sequences, what text predicts of them, their joining with the text, and the figures about it."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes

from stages.embed import collaborative, fuse, neighbours
from stages.embed.params import CollaborativeParams, EmbedParams
from stages.embed.vectors import normalise
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json
from stages.shared.core.params import validate_section
from stages.shared.core.schemas import INTERACTIONS
from tests.support.embed_data import run, sentences, tiny_text_model, write_interactions, write_items

ITEMS_N, COLD = 40, (17, 38)  # the last ones are never in base
SMALL = {"hidden": 16, "layers": 1, "heads": 2, "max_length": 8, "epochs": 8, "batch_size": 16, "lr": 0.01}
SPLITS = ["base"] * 8 + ["train"] * 3 + ["valid"] + ["test"] * 2


def unit(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return normalise(np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32))


def two_tastes(users: int = 60) -> list[list[int]]:
    """Every user keeps to the even or to the odd items; COLD ones come after base only, each with items of its kind."""
    rng = np.random.default_rng(0)
    sequences = []
    for user in range(users):
        warm = [item for item in range(user % 2, ITEMS_N, 2) if item not in COLD]
        own = rng.permutation(warm)[:14].tolist()
        own[12] = COLD[0] if user % 2 else COLD[1]
        sequences.append(own)
    return sequences


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_text_model(tmp_path / "tiny")
    write_items(tmp_path, sentences(ITEMS_N))
    write_interactions(tmp_path, two_tastes(), SPLITS)
    return tmp_path


def params(mode: str, **more) -> EmbedParams:
    return EmbedParams(model="tiny", pooling="mean", threads=1, collaborative={"mode": mode, **SMALL, **more})


def outcome(project) -> tuple[np.ndarray, dict]:
    return np.load(project / "data/embed/embeddings.npy"), read_json(project / "data/embed/metrics.json")


@pytest.mark.parametrize(("mode", "dim"), [("none", 32), ("concat", 48), ("align", 32)])
def test_the_stage_in_each_mode(project, mode, dim):
    run(params(mode, weight=0.5))
    vectors, metrics = outcome(project)
    first = (project / "data/embed/embeddings.npy").read_bytes()
    assert vectors.shape == (ITEMS_N, dim) == (metrics["items"], metrics["dim"]) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    if mode == "none":
        assert "collaborative" not in metrics
        return
    said = metrics["collaborative"]
    assert said["predicted_from_text"]["items"] == len(COLD) and said["predicted_from_text"]["r2_held_out"] < 0.5, "random texts"
    assert said["leak_check"]["overlap"] == 0 and said["loss"]["last"] < said["loss"]["first"]
    for split in ("base", "train"):
        figures = said["neighbours"][split]
        assert figures["text"] < figures["result"] and 0 < figures["diff_ci"][0] < figures["diff"] < figures["diff_ci"][1], split
    run(params(mode, weight=0.5))
    assert (project / "data/embed/embeddings.npy").read_bytes() == first


@pytest.mark.parametrize("mode", ["concat", "align"])
def test_nothing_after_base_moves_a_vector(project, mode):
    run(params(mode))
    before, _ = outcome(project)
    log = pl.read_parquet(project / "data/ingest/interactions.parquet")
    later = pl.col("split") != "base"
    swapped = log.with_columns(item=pl.when(later).then(ITEMS_N - 1 - pl.col("item")).otherwise(pl.col("item")))
    swapped.cast(INTERACTIONS).write_parquet(project / "data/ingest/interactions.parquet")
    run(params(mode))
    assert outcome(project)[0].tobytes() == before.tobytes()
    moved = log.with_columns(item=pl.when(later).then(pl.col("item")).otherwise(ITEMS_N - 1 - pl.col("item")))
    moved.cast(INTERACTIONS).write_parquet(project / "data/ingest/interactions.parquet")
    run(params(mode))
    assert outcome(project)[0].tobytes() != before.tobytes(), "base itself does"


def test_items_taken_by_the_same_people_come_together():
    base = [own[:8] for own in two_tastes()]
    own = collaborative.train_item_vectors([*base, [COLD[0]]], ITEMS_N, CollaborativeParams(**SMALL), seed=7)
    assert np.flatnonzero(~own.known).tolist() == list(COLD), "a sequence of one teaches nothing about its item"
    np.testing.assert_allclose(np.linalg.norm(own.vectors, axis=1), own.known, atol=1e-6)
    odd = np.arange(ITEMS_N) % 2 == 1
    some, others = own.vectors[own.known & odd], own.vectors[own.known & ~odd]
    assert (some @ some.T).mean() > 0.3 and (some @ others.T).mean() < -0.3


def test_what_the_text_says_is_predicted_and_what_it_does_not_say_is_not():
    text, known = unit(200, 12), np.arange(200) < 180
    linear = normalise(text @ unit(12, 6, seed=1) + 0.2)
    vectors, r2 = collaborative.predict_unknown(text, collaborative.ItemVectors(linear * known[:, None], known, [1.0]), seed=7)
    assert r2 > 0.9 and (vectors[:180] == linear[:180]).all()
    assert (vectors[180:] * linear[180:]).sum(axis=1).min() > 0.9
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    _, r2 = collaborative.predict_unknown(text, collaborative.ItemVectors(unit(200, 6, seed=2), known | True, [1.0]), seed=7)
    assert -0.5 < r2 < 0.1


@given(st.integers(2, 30), st.integers(1, 6), st.integers(1, 6), st.floats(0.05, 0.95), st.integers(0, 99))
def test_concat_mixes_the_cosines_by_weight(items, dim, hidden, weight, seed):
    text, other = unit(items, dim, seed), unit(items, hidden, seed + 1)
    joined = fuse.concat(text, other, weight)
    assert joined.shape == (items, dim + hidden) and joined.dtype == np.float32
    np.testing.assert_allclose(joined @ joined.T, (1 - weight) * text @ text.T + weight * other @ other.T, atol=1e-5)


@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 99))
def test_procrustes_equals_scipys_and_keeps_angles(hidden, more, seed):
    """scipy wants as many columns on both sides: zeros fill the source up, and its first rows are ours."""
    source, target = unit(25, hidden, seed), unit(25, hidden + more, seed + 1)
    rotation = fuse.procrustes(source, target)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(hidden), atol=1e-5)
    full, _ = orthogonal_procrustes(np.pad(source, ((0, 0), (0, more))), target)
    misfit = np.linalg.norm(source @ rotation - target)
    assert misfit == pytest.approx(np.linalg.norm(source @ full[:hidden] - target), abs=1e-5)


def test_procrustes_finds_a_planted_rotation():
    planted = np.linalg.qr(np.random.default_rng(3).normal(size=(10, 4)))[0].T
    source = unit(50, 4)
    np.testing.assert_allclose(fuse.procrustes(source, source @ planted), planted, atol=1e-5)


def test_align_of_what_is_already_the_texts_own_changes_nothing():
    text = unit(30, 5)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0].astype(np.float32)
    np.testing.assert_allclose(fuse.align(text, text @ turn, 0.4, np.ones(30, dtype=bool)), text, atol=1e-5)


def test_align_is_fitted_on_known_items_only():
    text, other = unit(30, 6), unit(30, 4, seed=1)
    known = np.arange(30) < 20
    before = fuse.align(text, other, 0.5, known)
    other[25] = -other[25]
    after = fuse.align(text, other, 0.5, known)
    assert np.flatnonzero((before != after).any(axis=1)).tolist() == [25]


@given(st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=8), min_size=1, max_size=6), st.integers(0, 99))
def test_neighbours_by_brute_force(sequences, seed):
    items = 12
    beside = {(a, b) for own in sequences for a, b in zip(own, own[1:], strict=False) if a != b}
    beside |= {(b, a) for a, b in beside}
    adjacent = neighbours.adjacency(sequences, items)
    assert {(int(a), int(b)) for a, b in zip(*adjacent.nonzero(), strict=True)} == beside
    rows = neighbours.sample(adjacent, seed)
    assert rows.tolist() == sorted({a for a, _ in beside})
    if not len(rows):
        return
    vectors = unit(items, 5, seed)
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    nearest = {a: sorted((b for b in range(items) if b != a), key=lambda b: -cosines[a, b])[:10] for a in range(items)}
    expected = [np.mean([(row, b) in beside for b in nearest[row]]) for row in rows.tolist()]
    assert neighbours.neighbour_shares(vectors, adjacent, rows) == pytest.approx(expected)
    figures = neighbours.compare(vectors, vectors, sequences, seed)
    assert figures["text"] == figures["result"] == pytest.approx(np.mean(expected)) and figures["diff_ci"] == [0, 0]
    degree = [sum((a, b) in beside for b in range(items)) for a in range(items)]
    most = sorted(range(items), key=lambda a: -degree[a])[:10]
    assert figures["popular"] == pytest.approx(np.mean([(row, b) in beside for row in rows.tolist() for b in most]))
    assert figures["chance"] == pytest.approx(np.mean([np.mean([(a, b) in beside for b in range(items) if b != a]) for a in rows.tolist()]))


def test_blocks_of_cosines_are_put_together(monkeypatch):
    sequences = np.random.default_rng(0).integers(0, 50, (30, 10)).tolist()
    adjacent, vectors = neighbours.adjacency(sequences, 50), unit(50, 8)
    rows = neighbours.sample(adjacent, 0)
    whole = neighbours.neighbour_shares(vectors, adjacent, rows)
    monkeypatch.setattr(neighbours, "CHUNK", 7)
    assert neighbours.neighbour_shares(vectors, adjacent, rows).tolist() == whole.tolist()
    monkeypatch.setattr(neighbours, "SAMPLE", 9)
    assert len(neighbours.sample(adjacent, 0)) == 9


def test_no_pair_after_base_leaves_only_the_count(project):
    log = pl.read_parquet(project / "data/ingest/interactions.parquet").filter(pl.col("split") != "train")
    log.write_parquet(project / "data/ingest/interactions.parquet")
    run(params("concat"))
    assert outcome(project)[1]["collaborative"]["neighbours"]["train"] == {"items": 0}


@pytest.mark.parametrize("weight", [0.0, 1.0, -0.1, 1.5])
def test_a_weight_outside_is_refused(weight):
    with pytest.raises(StageError, match=r"p\.yaml: embed\.collaborative\.weight: Input should be (greater|less) than"):
        validate_section("embed", EmbedParams, {"collaborative": {"weight": weight}}, "p.yaml")


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(StageError, match=r"embed\.collaborative: .*hidden \(10\) must be a multiple of heads \(3\)"):
        validate_section("embed", EmbedParams, {"collaborative": {"hidden": 10, "heads": 3}}, "p.yaml")


def test_too_many_dimensions_to_align(project):
    with pytest.raises(StageError, match=r"64 dimensions cannot be rotated into the text's 32; lower embed\.collaborative\.hidden"):
        run(params("align", hidden=64))
    assert not (project / "data/embed").exists()


def test_too_little_to_learn_from(project):
    write_interactions(project, [[0, 1, 2], [3], [4]], ["base"] * 3)
    with pytest.raises(StageError, match=r"3 items are in base sequences of two or more; collaborative vectors need 20; raise"):
        run(params("concat"))
    write_interactions(project, [[0, 1, 2]], ["train"] * 3)
    with pytest.raises(StageError, match=r"0 items are in base sequences"):
        run(params("concat"))


def test_an_item_that_has_no_text_row(project):
    write_interactions(project, [[0, 1, ITEMS_N]], ["base"] * 3)
    with pytest.raises(StageError, match=r"interactions\.parquet: item 40 is not in items\.parquet \(40 items\); rerun: gr2 run ingest"):
        run(params("concat"))


def test_training_that_diverges(project):
    with pytest.raises(StageError, match=r"the training diverged .*; lower embed\.collaborative\.lr"):
        run(params("concat", lr=1e30))
