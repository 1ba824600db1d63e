from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.shared.recsys import sasrec

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


def test_pad_keeps_the_last_items_shifted_by_one_and_is_no_wider_than_the_longest():
    assert sasrec.pad([[0, 1], [5, 6, 7, 8]], 3).tolist() == [[1, 2, 0], [7, 8, 9]]
    assert sasrec.pad([[0, 1], [], [4]], 6).tolist() == [[1, 2], [0, 0], [5, 0]]
    assert sasrec.pad([[]], 6).tolist() == [[0]]


@given(st.lists(st.integers(2, 9), min_size=1, max_size=200), st.integers(1, 7), st.integers(0, 5))
def test_batches_hold_every_row_once(lengths, batch_size, seed):
    made = sasrec.batches(lengths, batch_size, torch.Generator().manual_seed(seed))
    assert sorted(row for rows in made for row in rows) == list(range(len(lengths)))
    assert all(1 <= len(rows) <= batch_size for rows in made)
    assert made == sasrec.batches(lengths, batch_size, torch.Generator().manual_seed(seed))


def test_batches_are_of_like_length_and_in_no_order_of_length():
    lengths = np.random.default_rng(0).integers(1, 51, 1000)
    generator = torch.Generator().manual_seed(0)
    first, second = (sasrec.batches(lengths, 20, generator) for _ in range(2))
    assert first != second, "another draw each epoch"
    for made in (first, second):
        filled = sum(lengths[rows].max() * len(rows) for rows in made)
        assert filled < 1.1 * lengths.sum(), "padding is a small part"
        means = np.array([lengths[rows].mean() for rows in made])
        assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


@given(st.lists(st.integers(0, 30), min_size=0, max_size=8), st.integers(1, 6))
def test_every_step_is_a_target_once(lengths, longest):
    """Sequences of distinct numbers: each step (item before, item) must be in the windows exactly once."""
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


def test_the_loss_is_the_mean_over_all_targets():
    """Batches of unlike numbers of targets; at a learning rate of next to nothing the model stays what it is."""
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, ITEMS, length).tolist() for length in (2, 2, 2, 6, 7, 3, 7)]
    made, values = model(), []
    with torch.no_grad():
        for own in sequences:
            logits = made.logits(made(torch.tensor([own[:-1]]) + 1)[0])
            values += torch.nn.functional.cross_entropy(logits, torch.tensor(own[1:]), reduction="none").tolist()
    assert sasrec.train(made, sequences, 2, 2, 1e-12, 0) == pytest.approx([np.mean(values)] * 2, rel=1e-5)


def gradient(made: sasrec.SASRec, loss: torch.Tensor) -> torch.Tensor:
    made.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in made.parameters()])


def some_targets(made: sasrec.SASRec, seed: int, count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(1, ITEMS + 1, (count, LENGTH + 1), generator=torch.Generator().manual_seed(seed))
    return made(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten() - 1


@given(st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=15, deadline=None)
def test_the_sampled_loss_with_all_items_as_negatives_is_the_full_one(weights, seed):
    made = model(weights)
    negatives = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(seed))
    full, sampled = (
        loss(made, *some_targets(made, seed), *more) for loss, more in ((sasrec.full_loss, ()), (sasrec.sampled_loss, (negatives,)))
    )
    assert sampled.item() == pytest.approx(full.item(), rel=1e-5)
    assert torch.allclose(gradient(made, sampled), gradient(made, full), atol=1e-4)


def test_the_sampled_gradient_is_the_full_one_on_average_and_the_nearer_the_more_negatives():
    """The estimate of the sum of exponentials is unbiased, so that of its logarithm is off by O(1 / negatives)."""
    made = model()
    with torch.no_grad():
        made.item.weight.mul_(0.3)
    full = gradient(made, sasrec.full_loss(made, *some_targets(made, 0)))
    generator = torch.Generator().manual_seed(0)
    away, single = {}, {}
    for count in (2, 6, 10):
        draws = [torch.randperm(ITEMS, generator=generator)[:count] for _ in range(300)]
        drawn = torch.stack([gradient(made, sasrec.sampled_loss(made, *some_targets(made, 0), negatives)) for negatives in draws])
        away[count] = float((drawn.mean(dim=0) - full).norm() / full.norm())
        single[count] = float((drawn - full).norm(dim=1).mean() / full.norm())
    assert away[10] < away[6] < away[2] and away[6] < 0.15 and away[10] < 0.03
    assert away[6] < 0.5 * single[6], "what one draw is off is mostly chance"


def test_sums_of_exponentials_are_estimated_without_bias():
    """exp(loss) * p(target) is the estimated sum; its mean over all pairs of negatives is the sum itself."""
    made = model()
    states, wanted = (part[:1].detach() for part in some_targets(made, 0))
    logits = made.logits(states)[0].detach().double()
    pairs = [torch.tensor(pair) for pair in combinations(range(ITEMS), 2)]
    losses = torch.stack([sasrec.sampled_loss(made, states, wanted, pair).detach().double() for pair in pairs])
    assert float((losses + logits[wanted[0]]).exp().mean()) == pytest.approx(float(logits.exp().sum()), rel=1e-4)


def test_training_on_sampled_negatives_learns_the_cycle_too():
    sequences = [[(start + step) % ITEMS for step in range(10)] for start in range(ITEMS)] * 2
    torch.manual_seed(0)
    made = sasrec.SASRec(ITEMS, 16, 1, 2, LENGTH, 0.1)
    sasrec.train(made, sequences, epochs=20, batch_size=8, lr=0.01, seed=1, negatives=4)
    found, _ = sasrec.top_k(made, [[item] for item in range(ITEMS)], [[item] for item in range(ITEMS)], 1)
    assert found[:, 0].tolist() == [(item + 1) % ITEMS for item in range(ITEMS)]


def test_no_more_scores_are_held_at_once_than_allowed(monkeypatch):
    monkeypatch.setattr(sasrec, "CELLS", 3 * (ITEMS + 1))
    rows = []
    made = model()
    made.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    sasrec.top_k(made, [[1, 2]] * 8, [[1, 2]] * 8, 2)
    assert rows == [3, 3, 2]


def test_a_history_of_nothing_and_a_catalogue_too_small():
    found, scores = sasrec.top_k(model(), [[], [3]], [[], [3]], ITEMS)
    assert sorted(found[0].tolist()) == list(range(ITEMS)) and np.isfinite(scores[0]).all()
    assert np.isneginf(scores[1]).tolist() == [False] * (ITEMS - 1) + [True]


def test_sequences_of_one_item_teach_nothing_and_that_is_said():
    with pytest.raises(StageError, match=r"no user has two base interactions; raise ingest.base_share or ingest.min_base"):
        sasrec.train(model(), [[1], [2]], epochs=1, batch_size=2, lr=0.01, seed=0)
