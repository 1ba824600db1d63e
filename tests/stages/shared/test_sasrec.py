from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.shared import sasrec
from stages.shared.errors import StageError

ITEMS, LENGTH = 12, 6


def model(seed: int = 0, **more) -> sasrec.SASRec:
    torch.manual_seed(seed)
    options = {"items": ITEMS, "hidden": 16, "layers": 2, "heads": 2, "max_length": LENGTH, "dropout": 0.0, **more}
    made = sasrec.SASRec(**options).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # apart from each other, so that ranks do not hang on rounding
            parameter.normal_(std=0.5)
        made.item.weight[sasrec.PAD] = 0
    return made


def test_later_items_do_not_change_earlier_states():
    tokens = torch.randint(1, ITEMS + 1, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    states = model()(tokens)
    for cut in range(1, LENGTH):
        changed = tokens.clone()
        changed[:, cut:] = (changed[:, cut:] % ITEMS) + 1
        other = model()(changed)
        assert torch.allclose(states[:, :cut], other[:, :cut], atol=1e-5)
        assert not torch.allclose(states[:, cut:], other[:, cut:], atol=1e-2)


def test_padding_on_the_right_changes_nothing():
    tokens = torch.tensor([[3, 4, 5]])
    assert torch.allclose(model()(tokens), model()(torch.tensor([[3, 4, 5, 0, 0, 0]]))[:, :3], atol=1e-5)


def test_pad_keeps_the_last_items_shifted_by_one():
    assert sasrec.pad([[0, 1], [5, 6, 7, 8]], 3).tolist() == [[1, 2, 0], [7, 8, 9]]


@given(st.lists(st.integers(0, 30), min_size=0, max_size=8), st.integers(1, 6))
def test_every_step_is_a_target_once(lengths, longest):
    """Sequences of distinct numbers: each step (item before, item) must stand in the windows exactly once."""
    sequences = [[1000 * place + step for step in range(length)] for place, length in enumerate(lengths)]
    pieces = sasrec.windows(sequences, longest)
    assert all(2 <= len(piece) <= longest + 1 for piece in pieces)
    steps = [step for piece in pieces for step in pairwise(piece)]
    assert sorted(steps) == sorted(step for own in sequences for step in pairwise(own))


def test_top_k_equals_brute_force_and_leaves_out_what_was_seen():
    rng = np.random.default_rng(0)
    histories = [rng.permutation(ITEMS)[: rng.integers(1, 9)].tolist() for _ in range(20)]
    found, scores = sasrec.top_k(model(), histories, histories, 3, batch=7)
    assert found.shape == scores.shape == (20, 3) and found.dtype == np.int32 and scores.dtype == np.float32
    for row, history in enumerate(histories):
        tail = torch.tensor([history[-LENGTH:]]) + 1
        with torch.no_grad():
            logits = model().logits(model()(tail)[0, -1]).numpy()
        wanted = sorted((item for item in range(ITEMS) if item not in history), key=lambda item: -logits[item])[:3]
        assert found[row].tolist() == wanted
        assert np.allclose(scores[row], logits[wanted], atol=1e-4)


def test_training_learns_a_cycle_and_repeats_by_seed():
    """Each item is followed by the next; after training the next one is the first found."""
    sequences = [[(start + step) % ITEMS for step in range(10)] for start in range(ITEMS)] * 2
    trained = []
    for _ in range(2):
        torch.manual_seed(0)
        made = sasrec.SASRec(ITEMS, 16, 1, 2, LENGTH, 0.1)
        losses = sasrec.train(made, sequences, epochs=15, batch_size=8, lr=0.01, seed=1)
        trained.append(made)
    assert losses[-1] < 0.3 * losses[0] and not made.training
    assert losses[0] == pytest.approx(np.log(ITEMS), rel=0.3)
    found, _ = sasrec.top_k(made, [[item] for item in range(ITEMS)], [[item] for item in range(ITEMS)], 1)
    assert found[:, 0].tolist() == [(item + 1) % ITEMS for item in range(ITEMS)]
    assert all(torch.equal(a, b) for a, b in zip(trained[0].parameters(), trained[1].parameters(), strict=True))


def test_sequences_of_one_item_teach_nothing_and_that_is_said():
    with pytest.raises(StageError, match=r"no user has two base interactions; raise ingest.base_share or ingest.min_base"):
        sasrec.train(model(), [[1], [2]], epochs=1, batch_size=2, lr=0.01, seed=0)
