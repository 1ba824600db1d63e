"""What a probe says of models that know everything, and nothing."""

import numpy as np
import polars as pl
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from stages.midtrain import probes
from stages.midtrain.midtrain import make_model
from stages.midtrain.probes import Probed, next_item, probe, token_accuracy
from tests.stages.midtrain.test_midtrain import BASE, ITEM_CODES, LAYOUT, SMALL, TEXTS, WORLD
from tests.support.small_project import CATALOG, CODES, K

LATER = WORLD["data/ingest/interactions.parquet"].filter(pl.col("split") == "train")
PROBED = Probed(LAYOUT, CATALOG, np.array(CODES), BASE, LATER, 5, K)


@pytest.fixture(scope="module")
def made() -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    return make_model(SMALL, TEXTS, ITEM_CODES, LAYOUT)[:2]


class Oracle(torch.nn.Module):
    """Predicts what follows, as it is told the whole text."""

    def __init__(self, right: bool):
        super().__init__()
        self.right, self.weight = right, torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, **_):
        following = torch.cat([input_ids[:, 1:], input_ids[:, -1:]], dim=1)
        logits = torch.nn.functional.one_hot(following if self.right else following + 1, 4096).float()
        return type("Output", (), {"logits": logits})


@pytest.mark.parametrize(("right", "share"), [(True, 1.0), (False, 0.0)])
def test_every_task_is_probed_and_accuracy_counts_weighted_tokens(made, right, share):
    figures = probe(Oracle(right), made[1], PROBED, users=0, seed=1)
    assert figures == dict.fromkeys(("sid_to_caption", "caption_to_sid", "preference", "quoting", "judging", "sorting"), share)


def test_tokens_without_weight_do_not_count(made):
    half = [[(" A", 0.0), (" s3", 1.0), (" B", 0.0)]]
    assert token_accuracy(Oracle(True), made[1], half) == 1.0 and token_accuracy(Oracle(False), made[1], half) == 0.0


def test_the_next_item_is_searched_in_the_whole_catalogue(made, monkeypatch):
    targets = dict(LATER.sort("user", "position").group_by("user", maintain_order=True).agg(pl.col("item").first()).iter_rows())

    class Search:
        def __init__(self, *args, **kwargs):
            pass

        def top_k(self, histories, seen, k):
            """The target of even users in the second place, of odd ones nowhere."""
            rows = [[-1, targets[user] if user % 2 == 0 else -1, *[-1] * (k - 2)] for user in range(len(histories))]
            return np.array(rows), np.zeros((len(histories), k))

    monkeypatch.setattr(probes, "SidSearch", Search)
    figures = next_item(*made, PROBED, 6)
    assert figures["users"] == 6 and figures["recall@10"] == 0.5
    assert figures["ndcg@10"] == pytest.approx(0.5 / np.log2(3)) and figures["chance@10"] == pytest.approx(10 / 32)


def test_an_untrained_model_guesses(made):
    figures = probe(*made, PROBED, users=8, seed=1)
    assert max(value for name, value in figures.items() if name != "next_item") < 0.5
