from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.tokenize.assignment import overflow as module
from stages.tokenize.assignment.assign import optimal_last, random_last
from stages.tokenize.assignment.overflow import beam_prefixes, resolve_overflow
from stages.tokenize.quantizers.codebook import quantize


def nearest(latents: np.ndarray, books: np.ndarray) -> np.ndarray:
    import torch

    return quantize(torch.from_numpy(latents), torch.from_numpy(books))[0].numpy()


@settings(max_examples=80, deadline=None)
@given(
    st.data(), st.sampled_from([(2, 2), (3, 2), (2, 3), (3, 3), (2, 4)]), st.integers(0, 9999), st.booleans(), st.sampled_from([1, 2, 32])
)
def test_assignment_is_a_bijection_on_anything_the_codebooks_can_hold(data, shape, seed, alike, beam):
    """Up to the very last SID, also when all items are the same and the beam is too narrow to see the room there is."""
    size, levels = shape
    count = data.draw(st.integers(1, size**levels))
    generator = np.random.default_rng(seed)
    latents = generator.normal(size=(1 if alike else count, 3)).repeat(count if alike else 1, axis=0)
    books = generator.normal(size=(levels, size, 3))
    codes = nearest(latents, books)
    width, module.BEAM = module.BEAM, beam
    try:
        overflowed, moved = resolve_overflow(latents, codes, books)
    finally:
        module.BEAM = width
    stayed = np.setdiff1d(np.arange(count), moved)
    np.testing.assert_array_equal(overflowed[stayed], codes[stayed])
    assert (overflowed[moved, :-1] != codes[moved, :-1]).any(axis=1).all()
    for assigned in (random_last(overflowed, size, seed), optimal_last(overflowed, latents, books)):
        assert len(set(map(tuple, assigned.tolist()))) == count
        np.testing.assert_array_equal(assigned[:, :-1], overflowed[:, :-1])
    sizes = Counter(map(tuple, codes[:, :-1].tolist()))
    assert len(moved) >= sum(max(0, number - size) for number in sizes.values())


def test_who_has_room_moves_nobody():
    codes = np.array([[0, 0], [0, 1], [1, 1]])
    overflowed, moved = resolve_overflow(np.zeros((3, 2)), codes, np.zeros((2, 2, 2)))
    assert moved.size == 0 and overflowed is codes


def test_the_one_who_loses_least_goes_to_the_second_nearest():
    books = np.array([[[0.0], [10.0], [-30.0]], [[0.0], [0.1], [0.2]]])
    latents = np.array([[1.0], [4.0], [-1.0], [2.0]])  # all nearest to 0; 4.0 is the nearest to another, and that is 10
    overflowed, moved = resolve_overflow(latents, nearest(latents, books), books)
    assert moved.tolist() == [1] and overflowed[1, 0] == 1


def test_the_beam_finds_the_best_prefixes_when_it_is_wide_enough():
    generator = np.random.default_rng(4)
    books, latents = generator.normal(size=(4, 3, 5)), generator.normal(size=(6, 5))
    prefixes, costs = beam_prefixes(latents, books, 27)
    for latent, found, cost in zip(latents, prefixes, costs, strict=True):
        every = {
            codes: float(np.square(latent - sum(books[level, code] for level, code in enumerate(codes))).sum())
            for codes in product(range(3), repeat=3)
        }
        assert [tuple(row) for row in found.tolist()] == sorted(every, key=every.get)
        np.testing.assert_allclose(cost, sorted(every.values()), atol=1e-9)


def test_codes_given_before_count():
    books = np.array([[[0.0], [10.0]], [[0.0], [0.1]]])
    latents, taken = np.array([[0.0], [0.1]]), {(0,): np.array([1])}
    overflowed, moved = resolve_overflow(latents, nearest(latents, books), books, taken)
    assert moved.tolist() == [1] or moved.tolist() == [0]
    assert sorted(overflowed[:, 0].tolist()) == [0, 1]


def test_more_items_than_sids():
    with pytest.raises(StageError, match=r"5 items but only 2\^2 = 4 semantic IDs; raise tokenize.codebook_size or tokenize.levels"):
        resolve_overflow(np.zeros((5, 1)), np.zeros((5, 2), dtype=int), np.zeros((2, 2, 1)))
    with pytest.raises(StageError, match="5 items but only 4"[:11]):
        resolve_overflow(np.zeros((3, 1)), np.zeros((3, 2), dtype=int), np.zeros((2, 2, 1)), {(1,): np.array([0, 1])})
