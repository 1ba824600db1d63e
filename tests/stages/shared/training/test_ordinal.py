"""Soft labels against a hand-made distribution, and what they do to the likeliest word."""

import pytest
import torch
from scipy.stats import norm

from stages.shared.training.ordinal import OrdinalWords
from stages.shared.training.weighted_loss import weighted_loss

IDS = [7, 3, 9, 4]  # of levels 0 to 3; tokens need not be in order


def test_soft_labels_fall_off_as_a_normal_distribution():
    labels = OrdinalWords(IDS, 0.8).soft_labels()
    for level in range(4):
        density = torch.tensor([norm.pdf(other, level, 0.8) for other in range(4)])
        torch.testing.assert_close(labels[level], (density / density.sum()).float())


def test_a_perfect_prediction_of_the_soft_label_costs_nothing_and_other_words_keep_their_loss():
    words = OrdinalWords(IDS, 0.8)
    logits = torch.full((3, 12), -30.0)
    logits[0, IDS] = words.soft_labels()[2].log()
    logits[1, 5] = 30.0
    logits[2] = 0.0
    losses = words.losses(logits, torch.tensor([9, 5, 11]), torch.tensor([99.0, 0.25, 0.5]))
    assert losses.tolist() == pytest.approx([0.0, 0.25, 0.5], abs=1e-5)
    assert words.losses(logits, torch.tensor([5, 5, 11]), torch.ones(3)).tolist() == [1.0, 1.0, 1.0]


def test_of_two_likely_levels_the_one_between_becomes_likeliest():
    """Half the labels say level 0, half level 2: one label a word leaves two peaks, labels with a spread one between them."""
    targets = torch.tensor([[0, IDS[0]], [0, IDS[2]]])
    likeliest = {}
    for spread in (0.1, 1.5):
        logits = torch.zeros(12, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.1)
        for _ in range(300):
            optimizer.zero_grad()
            weighted_loss(logits.expand(2, 2, 12), targets, torch.ones(2, 2), OrdinalWords(IDS, spread)).backward()
            optimizer.step()
        likeliest[spread] = IDS.index(int(logits.argmax()))
    assert likeliest[0.1] in (0, 2) and likeliest[1.5] == 1
