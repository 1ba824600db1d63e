"""How much of the synthetic world can be learnt from its log: the world's own form, a conditional logit with the true features, fitted on
training data alone, next to the bound that knows the world.

    gr2 run evaluate --profile world        # once, for the slates
    python bench/world_learnable.py [--steps 400] [--l2 0.02] [--seed 7] [--without shares follow loyalty popularity]

Run in that project. The model (stages/shared/synthetic/world.py has the world's):

    score_j = popularity_j + a * log share_c(j) + b * log share_brand(j) + d * log share_department(j)
              + sum over the last M items g of lag_m * (follow[c(g), c(j)] + same brand * loyalty[c(g), c(j)])

Shares are of the user's own history, smoothed: the user's type is not known, and the history is what tells of it. Every number is learnt
by maximum likelihood over all items not yet taken, on the splits `base` and `train`, with the weight `--l2` on follow and loyalty.
--without leaves parts at zero: what they are worth. Prints the share of the achievable gain in expected NDCG@5 with its interval over
users, as data/report/metrics.json has it for models.
"""

import argparse
import json

import numpy as np
import polars as pl
import torch
from torch import nn

from stages.report.diagnostics.headroom import headroom
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.evaluation.ground_truth import load_ground_truth
from stages.shared.evaluation.test_set import load_test_set, read_slate_tables
from stages.shared.slates.reranking import rankings
from stages.shared.stats.bootstrap import Bootstrap
from stages.shared.synthetic.world import World, whole_histories

PARTS = {"shares": "shares_3", "follow": "follow_CC", "loyalty": "loyalty_CC", "popularity": "popularity_I"}
SMOOTHING = 1.0  # items that count as taken of every category and brand


class ConditionalLogit(nn.Module):
    """Shapes: N events, I items, C categories, M last items."""

    def __init__(self, category_I: np.ndarray, brand_I: np.ndarray, department_I: np.ndarray, memory: int):
        super().__init__()
        self.groups_I = [torch.from_numpy(group.astype(np.int64)) for group in (category_I, brand_I, department_I)]
        categories = int(category_I.max()) + 1
        self.popularity_I = nn.Parameter(torch.zeros(len(category_I)))
        self.shares_3 = nn.Parameter(torch.zeros(3))
        self.follow_CC = nn.Parameter(torch.zeros(categories, categories))
        self.loyalty_CC = nn.Parameter(torch.zeros(categories, categories))
        self.lag_M = nn.Parameter(torch.tensor([1.0] + [0.5] * (memory - 1)))

    def forward(self, taken_NI: torch.Tensor, last_NM: torch.Tensor) -> torch.Tensor:
        """log p of every item [N, I]. taken_NI: 1 for what was taken before; last_NM: the last item, the one before it, ...; -1: none."""
        category_I, brand_I, _ = self.groups_I
        scores_NI = self.popularity_I.expand(len(taken_NI), -1)
        for weight, group_I in zip(self.shares_3, self.groups_I, strict=True):
            counts_NG = torch.zeros(len(taken_NI), int(group_I.max()) + 1).index_add_(1, group_I, taken_NI) + SMOOTHING
            scores_NI = scores_NI + weight * (counts_NG / counts_NG.sum(1, keepdim=True)).log()[:, group_I]
        for lag, last_N in zip(self.lag_M, last_NM.T, strict=True):
            known_N1 = (last_N >= 0).float()[:, None]
            follow_NI = self.follow_CC[category_I[last_N]][:, category_I]
            same_NI = (brand_I[last_N][:, None] == brand_I).float() * self.loyalty_CC[category_I[last_N]][:, category_I]
            scores_NI = scores_NI + known_N1 * lag * (follow_NI + same_NI)
        return torch.log_softmax(scores_NI.masked_fill(taken_NI > 0, -torch.inf), dim=1)


def events(histories: list[np.ndarray], items: int, memory: int) -> tuple[torch.Tensor, torch.Tensor]:
    """taken_NI and last_NM of histories."""
    taken_NI, last_NM = torch.zeros(len(histories), items), torch.full((len(histories), memory), -1, dtype=torch.long)
    for row, history in enumerate(histories):
        taken_NI[row, history.tolist()] = 1.0
        for place, item in enumerate(history[::-1][:memory].tolist()):
            last_NM[row, place] = item
    return taken_NI, last_NM


def fit(model: ConditionalLogit, training: pl.DataFrame, steps: int, l2: float, memory: int, rng: np.random.Generator) -> None:
    sequences = training.sort("user", "position").group_by("user", maintain_order=True).agg("item")["item"].to_list()
    pairs = [(np.array(sequence[:place]), sequence[place]) for sequence in sequences for place in range(1, len(sequence))]
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = [pairs[i] for i in rng.choice(len(pairs), 1024, replace=False)]
        logp_NI = model(*events([history for history, _ in batch], len(model.popularity_I), memory))
        loss = -logp_NI[torch.arange(len(batch)), [item for _, item in batch]].mean()
        penalty = l2 * (model.follow_CC.square().mean() + model.loyalty_CC.square().mean())
        optimizer.zero_grad()
        (loss + penalty).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--l2", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--without", nargs="+", default=[], choices=PARTS)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    world = World.load(DATA / "ingest/world.safetensors")
    if world is None:
        raise SystemExit("data/ingest holds no synthetic world; run: gr2 run evaluate --profile world")
    try:
        test_set = load_test_set(read_slate_tables(), 0)
    except StageError as error:
        raise SystemExit(f"world_learnable: {error}") from None
    truth = load_ground_truth(test_set)
    assert truth
    # Departments are the upper level of the categories in the items' table; categories and brands as the world has them.
    names = pl.read_parquet(DATA / "ingest/items.parquet")["categories"].list.first().to_list()
    department_I = np.unique(np.array([name or "" for name in names]), return_inverse=True)[1]
    memory = len(world.lag_M)
    model = ConditionalLogit(world.category_I, world.brand_I, department_I, memory)
    for part in options.without:
        getattr(model, PARTS[part]).requires_grad_(False)  # it starts at zero, and stays
    training = test_set.interactions.filter(pl.col("split").is_in(["base", "train"]))
    fit(model, training, options.steps, options.l2, memory, np.random.default_rng(options.seed))
    with torch.no_grad():
        histories = whole_histories(test_set.interactions, test_set.users, test_set.positions)
        logp_NI = model(*events([np.asarray(history) for history in histories], len(world.category_I), memory)).numpy()
    scores_NK = np.take_along_axis(logp_NI, test_set.candidates_NK, axis=1)
    ranked = {
        "incoming": rankings.incoming(test_set.slates),
        "learnable": rankings.from_scores(scores_NK),
        "oracle": rankings.from_scores(truth.log_probabilities_NK),
    }
    shares = headroom(ranked, truth.chances_NK, Bootstrap(test_set.users, 2000, options.seed))
    print(json.dumps({"slates": len(test_set.slates), **shares}, indent=2))


if __name__ == "__main__":
    main()
