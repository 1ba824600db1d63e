"""The retrievers that count, the sequence model behind the same interface, and the choice among them."""

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from stages.retrieve.params import ItemKnnParams, RetrieveParams
from stages.retrieve.retrievers import item_knn
from stages.retrieve.retrievers.retriever import fit
from stages.shared.core.errors import StageError
from stages.shared.core.params import validate_section
from stages.shared.core.schemas import INTERACTIONS

ITEMS = 15
SMALL = {"max_length": 6, "hidden": 16, "layers": 1, "heads": 1, "epochs": 2, "batch_size": 8, "device": "cpu"}
sequences = st.lists(st.lists(st.integers(0, ITEMS - 1), min_size=1, max_size=8), min_size=1, max_size=12)


def training(own: list[list[int]]) -> pl.DataFrame:
    rows = [(user, item, place, place, "base") for user, items in enumerate(own) for place, item in enumerate(items)]
    return pl.DataFrame(rows, schema=INTERACTIONS, orient="row")


def some_sequences(users: int = 40) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, ITEMS, rng.integers(2, 9)).tolist() for _ in range(users)]


@given(sequences, sequences, st.integers(1, 6))
def test_popularity_is_the_count_and_equals_stand_by_number(own, seen, k):
    ranker, figures = fit(RetrieveParams(model="popularity"), training(own), ITEMS, 0)
    counts = Counter(item for items in own for item in items)
    assert figures == {"items_counted": len(counts)}
    found, scores = ranker.top_k(seen, seen, k)
    assert (found.dtype, scores.dtype, found.shape, scores.shape) == (np.int32, np.float32, (len(seen), k), (len(seen), k))
    for row, taken in enumerate(seen):
        wanted = sorted(set(range(ITEMS)) - set(taken), key=lambda item: (-counts[item], item))[:k]
        assert found[row].tolist() == wanted and scores[row].tolist() == [counts[item] for item in wanted]


def similarities(own: list[list[int]], params: ItemKnnParams) -> dict[int, dict[int, float]]:
    """By sets and loops, from the formula."""
    takers = {item: {user for user, items in enumerate(own) if item in items} for item in range(ITEMS)}
    near: dict[int, dict[int, float]] = {}
    for item in range(ITEMS):
        row = {}
        for other in range(ITEMS):
            common = len(takers[item] & takers[other])
            if common and other != item:
                cosine = common / math.sqrt(len(takers[item]) * len(takers[other]))
                row[other] = cosine * common / (common + params.shrinkage)
        kept = sorted(row, key=lambda other: (-np.float32(row[other]), other))[: params.neighbours]
        near[item] = {other: row[other] for other in kept}
    return near


@settings(max_examples=40)
@given(sequences, sequences, st.integers(1, 6), st.sampled_from([0.0, 2.5]), st.sampled_from([2, 100]), st.sampled_from([30, 2**24]))
def test_item_knn_is_the_formula_whatever_the_blocks(own, histories, k, shrinkage, neighbours, products):
    params = ItemKnnParams(neighbours=neighbours, last=3, decay=0.5, shrinkage=shrinkage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_knn, "PRODUCTS", products)
        patch.setattr(item_knn, "BATCH", 5)
        ranker, _ = fit(RetrieveParams(model="item_knn", item_knn=params), training(own), ITEMS, 0)
        found, scores = ranker.top_k(histories, histories, k)
    if neighbours < ITEMS:  # equals up to rounding may be kept otherwise: only what was kept is compared
        near = {item: dict(zip(row.indices.tolist(), row.data.tolist(), strict=True)) for item, row in enumerate(ranker.similarity)}
        full = similarities(own, params.model_copy(update={"neighbours": ITEMS}))
        for item, row in near.items():
            assert len(row) == min(neighbours, len(full[item]))
            assert sorted(row.values(), reverse=True) == pytest.approx(sorted(full[item].values(), reverse=True)[:neighbours], rel=1e-5)
    else:
        near = similarities(own, params)
    for row, history in enumerate(histories):
        expected = {item: 0.0 for item in range(ITEMS)}
        for back, voter in enumerate(reversed(history[-3:])):
            for other, similarity in near[voter].items():
                expected[other] += similarity * 0.5**back
        best = sorted((value for item, value in expected.items() if item not in history), reverse=True)[:k]
        assert scores[row].tolist() == pytest.approx(best, rel=1e-4, abs=1e-6)
        assert scores[row].tolist() == pytest.approx([expected[item] for item in found[row]], rel=1e-4, abs=1e-6)
        assert len(set(found[row].tolist())) == k and not set(found[row].tolist()) & set(history)


def test_item_knn_fills_up_with_the_most_popular():
    """0 and 1 share a user; of the rest 5 is the most taken, then 4. A user with no history gets the most popular of all."""
    own = [[0, 1], [5], [5], [5], [4], [4]]
    ranker, _ = fit(RetrieveParams(model="item_knn"), training(own), ITEMS, 0)
    found, scores = ranker.top_k([[0], []], [[0], []], 3)
    assert found.tolist() == [[1, 5, 4], [5, 4, 0]]
    assert scores[0, 0] > 0 and scores[0, 1:].tolist() == [0, 0] and scores[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("model", ["popularity", "item_knn", "sasrec"])
def test_what_cannot_be_filled_is_minus_infinity(model):
    ranker, _ = fit(RetrieveParams(model=model, **SMALL), training(some_sequences()), ITEMS, 0)
    taken = list(range(ITEMS - 2))
    found, scores = ranker.top_k([taken, [3]], [taken, [3]], 4)
    assert np.isfinite(scores).tolist() == [[True, True, False, False], [True] * 4]
    assert set(found[0, :2].tolist()) == {ITEMS - 2, ITEMS - 1}
    _, scores = ranker.top_k([[3]], [[3]], ITEMS + 2)  # more than there are
    assert np.isfinite(scores).sum() == ITEMS - 1


@pytest.mark.parametrize("model", ["popularity", "item_knn", "sasrec"])
def test_weights_on_disk_are_finite_and_repeat_by_seed(model, tmp_path):
    params = RetrieveParams(model=model, **SMALL)
    for name in ("a", "b"):
        ranker, figures = fit(params, training(some_sequences()), ITEMS, 3)
        ranker.save(tmp_path / name)
    (file,) = (tmp_path / "a").iterdir()
    assert file.name == f"{model}.safetensors" and all(np.isfinite(part).all() for part in load_file(file).values())
    assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    assert figures and all(isinstance(key, str) for key in figures)


def scores_of(**change) -> np.ndarray:
    ranker, _ = fit(RetrieveParams(**{**SMALL, **change}), training(some_sequences()), ITEMS, change.get("seed", 0))
    return ranker.top_k(some_sequences(), some_sequences(), 3)[1]


@pytest.mark.parametrize(
    "change",
    [{"loss": "sampled"}, {"loss": "sampled", "negatives": 3}, {"weight_decay": 0.5}, {"lr": 0.01}, {"seed": 1}, {"epochs": 3}],
    ids=str,
)
def test_every_parameter_of_sasrec_changes_the_scores(change):
    base = {"loss": "sampled", "negatives": 5} if "negatives" in change else {"dropout": 0.0}
    assert not np.array_equal(scores_of(**base), scores_of(**{**base, **change}))


@pytest.mark.parametrize("change", [{"neighbours": 2}, {"last": 2}, {"decay": 0.3}, {"shrinkage": 0.0}], ids=str)
def test_every_parameter_of_item_knn_changes_the_scores(change):
    assert not np.array_equal(scores_of(model="item_knn"), scores_of(model="item_knn", item_knn=ItemKnnParams(**change)))


def test_no_item_is_proposed_from_rows_that_were_not_given():
    """Ranked from the first users only, the last users' own items have no votes and no counts."""
    own = [[0, 1, 2], [0, 1], [9, 10], [9, 10]]
    ranker, _ = fit(RetrieveParams(model="item_knn"), training(own[:2]), ITEMS, 0)
    assert ranker.popularity.counts[9:].sum() == 0 and ranker.similarity[9:].nnz == 0


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"model": "language_model"}, r"retrieve\.model is language_model and retrieve\.reads is data/ingest/items\.parquet"),
        ({"reads": "data/midtrain/model"}, r"retrieve\.model is sasrec and retrieve\.reads is data/midtrain/model"),
        ({"hidden": 64, "heads": 3}, r"hidden \(64\) must be a multiple of heads \(3\)"),
        ({"model": "bert4rec"}, r"retrieve\.model: .*'language_model'"),
        ({"item_knn": {"neighbors": 3}}, r"retrieve\.item_knn\.neighbors: unknown key; did you mean 'neighbours'"),
    ],
)
def test_sections_that_do_not_hold_together(section, message):
    with pytest.raises(StageError, match=message):
        validate_section("retrieve", RetrieveParams, section, "params.yaml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there():
    with pytest.raises(StageError, match=r"retrieve\.device: cuda, but torch finds no GPU here; set it to auto or cpu"):
        fit(RetrieveParams(**{**SMALL, "device": "cuda"}), training(some_sequences()), ITEMS, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_starts_from_the_same_weights_and_ends_near():
    change = {"dropout": 0.0, "lr": 1e-4}
    assert np.allclose(scores_of(**change, device="cpu"), scores_of(**change, device="cuda"), atol=1e-2)
