import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.shared.slates.trie import DEAD, SidTrie

SIZE = 4
sid_sets = st.integers(1, 3).flatmap(
    lambda levels: st.sets(st.tuples(*[st.integers(0, SIZE - 1)] * levels), min_size=1, max_size=40).map(list)
)


@settings(deadline=None)
@given(sid_sets)
def test_it_accepts_exactly_the_assigned_sids(sids):
    trie, known = SidTrie.from_codes(np.array(sids), SIZE), set(sids)
    every = list(itertools.product(range(SIZE), repeat=len(sids[0])))
    items = trie.item(np.array(every))
    for sid, item in zip(every, items.tolist(), strict=True):
        assert (item >= 0) == (sid in known)
        assert item < 0 or sids[item] == sid


@settings(deadline=None)
@given(sid_sets)
def test_what_may_follow_any_prefix_is_what_the_set_says(sids):
    trie, levels = SidTrie.from_codes(np.array(sids), SIZE), len(sids[0])
    for length in range(levels + 1):
        prefixes = list(itertools.product(range(SIZE), repeat=length))
        nodes = trie.walk(np.array(prefixes).reshape(len(prefixes), length))
        for prefix, node, allowed in zip(prefixes, nodes, trie.allowed(nodes), strict=True):
            following = {sid[length] for sid in sids if sid[:length] == prefix and length < levels}
            assert set(np.flatnonzero(allowed).tolist()) == following
            assert (node != DEAD) == any(sid[:length] == prefix for sid in sids)


def test_decoding_under_the_mask_can_only_end_in_an_item():
    generator = np.random.default_rng(0)
    codes = np.unique(generator.integers(0, 16, size=(300, 4)), axis=0)
    trie = SidTrie.from_codes(codes, 16)
    nodes, written = np.zeros(200, dtype=np.int64), []
    for _ in range(4):
        choice = np.array([generator.choice(np.flatnonzero(allowed)) for allowed in trie.allowed(nodes)])
        written.append(choice)
        nodes = trie.step(nodes, choice)
    items = trie.item(np.stack(written, axis=1))
    np.testing.assert_array_equal(codes[items], np.stack(written, axis=1))


def test_it_is_in_compressed_sparse_rows():
    trie = SidTrie.from_codes(np.array([[1, 0], [0, 2], [1, 2]]), 3)
    assert trie.offsets.tolist() == [0, 2, 3, 5, 5, 5, 5]  # root, nodes 0 and 1, three leaves
    assert trie.codes.tolist() == [0, 1, 2, 0, 2]
    assert trie.items.tolist() == [1, 0, 2]


def test_two_items_with_one_sid_are_named():
    with pytest.raises(StageError, match=r"items 0 and 2 have the same SID \[1, 1\]"):
        SidTrie.from_codes(np.array([[1, 1], [0, 1], [1, 1]]), 2)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    codes = np.unique(np.random.default_rng(1).integers(0, 8, size=(50, 3)), axis=0)
    SidTrie.from_codes(codes, 8).save(tmp_path / "trie.safetensors")
    loaded = SidTrie.load(tmp_path / "trie.safetensors")
    assert (loaded.levels, loaded.codebook_size) == (3, 8)
    np.testing.assert_array_equal(loaded.item(codes), np.arange(len(codes)))
    with pytest.raises(StageError, match="no such file"):
        SidTrie.load(tmp_path / "other.safetensors")
    (tmp_path / "trie.safetensors").write_bytes(b"cut")
    with pytest.raises(StageError, match="not a readable trie"):
        SidTrie.load(tmp_path / "trie.safetensors")
