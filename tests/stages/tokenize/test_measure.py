from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from stages.shared.core.errors import StageError
from stages.tokenize import quality_gates
from stages.tokenize.assignment.append import jensen_shannon
from stages.tokenize.measure import (
    category_labels,
    codebook_use,
    collision_popularity,
    collisions,
    neighbour_overlap,
    prefix_purity,
    uniqueness,
    usage_counts,
    variance,
)
from stages.tokenize.params import TokenizeParams


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_uniqueness_and_collisions_by_counting(rows):
    codes, counted = np.array(rows), Counter(rows)
    assert uniqueness(codes) == pytest.approx(sum(counted[row] == 1 for row in rows) / len(rows))
    assert sorted(map(len, collisions(codes))) == sorted(count for count in counted.values() if count > 1)
    for items in collisions(codes):
        assert len({rows[item] for item in items}) == 1


def test_use_of_the_codebooks():
    codes = np.array([[0, 1], [1, 1], [2, 1], [3, 1]])
    assert usage_counts(codes, 4).tolist() == [[1, 1, 1, 1], [0, 4, 0, 0]]
    assert codebook_use(codes, 4) == {"usage": [1.0, 0.25], "perplexity": [4.0, 1.0], "entropy_bits": [2.0, 0.0]}


def test_purity_by_hand_and_by_chance():
    codes = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 0, 3], [1, 0, 4]])
    labels = np.array([7, 7, 3, 3, -1])
    assert prefix_purity(codes, labels, seed=0)["purity"] == [0.75, 1.0]
    generator = np.random.default_rng(0)
    codes, labels = generator.integers(0, 4, size=(4000, 3)), generator.integers(0, 5, size=4000)
    found = prefix_purity(codes, labels, seed=1)
    np.testing.assert_allclose(found["purity"], found["shuffled"], atol=0.02)
    # A catalogue may have no categories at all.
    assert prefix_purity(codes, np.full(4000, -1), seed=1) == {"purity": [0.0, 0.0], "shuffled": [0.0, 0.0]}


def test_a_label_is_the_whole_path():
    labels = category_labels(pl.Series([["A", "B"], ["A"], [], ["A", "B"], ["C", "B"]], dtype=pl.List(pl.String)))
    assert labels[0] == labels[3] and labels[2] == -1 and len(set(labels.tolist())) == 4


def test_neighbours_share_prefixes_where_prefixes_are_clusters():
    generator = np.random.default_rng(2)
    cluster = np.repeat(np.arange(8), 30)
    vectors = np.eye(16, dtype=np.float32)[cluster] + generator.normal(scale=0.01, size=(240, 16)).astype(np.float32)
    codes = np.c_[cluster, generator.integers(0, 4, size=240), np.arange(240)]
    found = neighbour_overlap(vectors, codes, seed=0)
    assert found["items"] == 240 and found["near"][0] == 1.0 and found["near"][1] == pytest.approx(0.25, abs=0.05)
    assert found["random"][0] == pytest.approx(1 / 8, abs=0.03)
    assert neighbour_overlap(vectors[:3], codes[:3], seed=0)["neighbours"] == 2


def test_who_collides_by_scikit_learn():
    generator = np.random.default_rng(3)
    codes, taken = generator.integers(0, 6, size=(60, 2)), generator.integers(0, 9, size=60)
    shared = np.array([Counter(map(tuple, codes.tolist()))[tuple(row)] > 1 for row in codes.tolist()])
    found = collision_popularity(codes, taken)
    assert found["auc"] == pytest.approx(roc_auc_score(shared, taken), abs=1e-6)
    assert found["mean_taken_colliding"] == pytest.approx(taken[shared].mean(), abs=1e-3)
    assert collision_popularity(np.array([[0, 1], [1, 0]]), taken[:2])["auc"] is None


def test_divergence_has_its_two_ends():
    assert jensen_shannon(np.array([3, 1, 0]), np.array([6, 2, 0])) == pytest.approx(0.0)
    assert jensen_shannon(np.array([3, 1, 0, 0]), np.array([0, 0, 5, 2])) == pytest.approx(1.0)


def test_every_gate_speaks_with_its_numbers():
    collapsed, fine = np.zeros((64, 3), dtype=int), np.stack(np.meshgrid(range(4), range(4), range(4)), axis=-1).reshape(-1, 3)
    quality_gates.check(fine, fine, TokenizeParams(levels=3, codebook_size=4, perplexity_gate=0.99))
    with pytest.raises(StageError) as caught:
        quality_gates.check(collapsed, collapsed, TokenizeParams(levels=3, codebook_size=4, perplexity_gate=0.5))
    assert "[0.25, 0.25, 0.25], below tokenize.usage_gate 0.9" in str(caught.value)
    assert "[1.0, 1.0, 1.0] of 4 codes, below tokenize.perplexity_gate 0.5" in str(caught.value)
    assert "uniqueness 0.0000 is below tokenize.uniqueness_gate 0.99: 64 of 64 items share 1 SIDs" in str(caught.value)


def test_a_small_catalogue_cannot_fill_a_codebook():
    codes = np.stack([np.arange(8)] * 3, axis=1)
    quality_gates.check(codes, codes, TokenizeParams(levels=3, codebook_size=16))


def test_variance_is_numpys():
    vectors = (np.random.default_rng(5).normal(size=(500, 7)) * np.arange(1, 8) + 100).astype(np.float32)
    assert variance(vectors) == pytest.approx(vectors.astype(np.float64).var(axis=0).mean(), rel=1e-9)
