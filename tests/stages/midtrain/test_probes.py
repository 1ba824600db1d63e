"""What a probe says of models that know everything, and nothing."""

import numpy as np
import polars as pl
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from stages.midtrain import probes
from stages.midtrain.documents import CompactWording
from stages.midtrain.midtrain import make_model
from stages.midtrain.probes import Probed, accuracy, next_item, probe
from tests.stages.midtrain.test_midtrain import BASE, ITEM_CODES, LAYOUT, SMALL, TEXTS, WORLD
from tests.support.small_project import CATALOG, CODES, K

LATER = WORLD["data/ingest/interactions.parquet"].filter(pl.col("split") == "train")
PROBED = Probed(LAYOUT, CompactWording(CATALOG), CATALOG, np.array(CODES), BASE, LATER, 5, K)


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
    figures = probe(Oracle(right), made[1], PROBED, documents_a_task=64, users=0, seed=1)
    shares = ("sid_to_title", "sid_to_caption", "caption_to_sid", "preference", "quoting", "judging", "sorting")
    assert figures == dict.fromkeys((*shares, "sid_to_title_exact", "sid_to_caption_exact", "caption_to_sid_exact"), share)


def test_tokens_without_weight_do_not_count(made):
    half = [[(" A", 0.0), (" s3", 1.0), (" B", 0.0)]]
    assert accuracy(Oracle(True), made[1], half) == (1.0, 1.0) and accuracy(Oracle(False), made[1], half) == (0.0, 0.0)


def test_a_document_is_exact_where_none_of_its_tokens_is_wrong(made):
    tokenizer = made[1]
    documents = [[(" A", 0.0), (" s3 B s4", 1.0)], [(" A", 0.0), (" s3 B", 1.0)]]
    wrong = tokenizer.convert_tokens_to_ids(" s4".replace(" ", "Ġ"))

    class Blind(Oracle):
        """Knows all but one token."""

        def forward(self, input_ids, **more):
            output = super().forward(input_ids, **more)
            output.logits[..., wrong] = 0
            return output

    assert accuracy(Blind(True), tokenizer, documents) == (4 / 5, 1 / 2)


def test_the_next_item_is_searched_in_the_whole_catalogue(made, monkeypatch):
    targets = dict(LATER.sort("user", "position").group_by("user", maintain_order=True).agg(pl.col("item").first()).iter_rows())

    class Search:
        def __init__(self, *args, **kwargs):
            pass

        def top_k(self, histories, seen, k):
            """The target of even users in the second place, of odd ones nowhere."""
            rows = [[-1, targets[user] if user % 2 == 0 else -1, *[-1] * (k - 2)] for user in range(len(histories))]
            return np.array(rows), np.zeros((len(histories), k))

        def free(self, histories):
            return np.array([-2, -1, 0, 5, 7, -2])

    monkeypatch.setattr(probes, "SidSearch", Search)
    figures = next_item(*made, PROBED, 6)
    assert figures["users"] == 6 and figures["recall@10"] == figures["recall@5"] == 0.5
    assert figures["free_formed"] == pytest.approx(4 / 6) and figures["free_valid"] == 0.5
    assert figures["ndcg@10"] == figures["ndcg@5"] == pytest.approx(0.5 / np.log2(3)) and figures["chance@10"] == pytest.approx(10 / 32)


def test_an_untrained_model_guesses(made):
    figures = probe(*made, PROBED, documents_a_task=64, users=8, seed=1)
    assert max(value for name, value in figures.items() if name != "next_item") < 0.5
