"""What RL can gain on a project's slates where language is no obstacle: a small network for the model, and one thing changed at a time.

    gr2 run --until retrieve                         # once, in a clone: PROJECT
    python bench/direct_policy.py --project PROJECT [--seeds 7 8 9] [--steps 400] [--arms base sampled ...] [--name direct_policy]

The network reads what a trace quotes of a candidate (the features' bins) and gives a distribution over the levels of relevance, normal
around its score with a standard deviation of one level, which is about what sft leaves. It starts from the teacher's levels (what sft is
taught) or from nothing, and learns from the stage's own reward on the training slates: so many answers a step, the exact gradient over the
levels of each candidate (stages/rl/credit.py) with the others as drawn. Its answer to a test slate sorts its likeliest levels. The arms:

- base: reward `strict`, all training slates, 48 hidden units;
- sampled: groups of 8 and one advantage an answer, as GRPO has it: what exploration costs;
- linear, wide: capacity;
- quarter, half: so many of the users with training slates, drawn at random: whether more data would help;
- expected (synthetic world alone): the reward's mean over what the user might have taken, by the world's own probabilities: what the luck
  of one target costs;
- conditional: GR2's format reward, which is paid wherever the target stood first;
- nothing: without a teacher.

Reward on the training slates, of the likeliest levels, tells learning from standing still. NDCG@5 is of the test slates; in the synthetic
world it is the expected one. Intervals (95 %) over seeds and users.
"""

import argparse
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from midtrain_runs import write_lines
from numpy.typing import NDArray
from rl_allocation import interval, shown
from torch import Tensor, nn
from torch.nn.functional import one_hot
from world_relevances import world_relevances

from stages.rl.params import RlParams
from stages.rl.rewards.group import reward_of_order
from stages.shared.core.outputs import DATA
from stages.shared.core.params import load_params
from stages.shared.core.schemas import read_slate_table
from stages.shared.evaluation.ground_truth import load_ground_truth
from stages.shared.evaluation.test_set import load_test_set, read_slate_tables
from stages.shared.recsys import lambdamart
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.reranking.padding import relevance_array
from stages.shared.slates.slate import load_slates
from stages.shared.stats.metrics import slate_metrics
from stages.shared.synthetic.world import expected
from stages.traces.out_of_time import feature_array, level_edges
from stages.traces.params import TracesParams

LEVELS, BINS, GROUP = 24, 10, 8
TEACHING, BATCH = 1500, 64  # steps towards the teacher's levels, slates each


@dataclass(frozen=True)
class Arm:
    """hidden: 0 = linear. share: of the users with training slates. start: from the teacher's levels."""

    hidden: int = 48
    share: float = 1.0
    exact: bool = True
    start: bool = True
    reward: str = "strict"
    expected: bool = False


ARMS = {
    "base": Arm(),
    "sampled": Arm(exact=False),
    "linear": Arm(hidden=0),
    "wide": Arm(hidden=256),
    "quarter": Arm(share=0.25),
    "half": Arm(share=0.5),
    "expected": Arm(expected=True),
    "conditional": Arm(reward="conditional"),
    "nothing": Arm(start=False),
}


@dataclass(frozen=True)
class Data:
    """N training and M test slates of K candidates with F features. teacher_NK: levels; chances_NK: of the synthetic world, else None."""

    train_NKF: Tensor
    teacher_NK: Tensor
    target_N: Tensor
    users_N: NDArray[np.int64]
    chances_NK: Tensor | None
    test_MKF: Tensor
    teacher_MK: NDArray[np.int64]
    test_users: NDArray[np.int_]
    targets: NDArray[np.int_]
    truth: NDArray[np.float64] | None

    def ndcg(self, levels_MK: NDArray[np.int64]) -> NDArray[np.float64]:
        """NDCG@5 of each test slate sorted by levels."""
        orders = np.argsort(-levels_MK, axis=1, kind="stable")
        gains = slate_metrics(np.arange(orders.shape[1]))["ndcg@5"]
        if self.truth is not None:
            return expected(gains, orders, self.truth)
        return gains[np.argmax(orders == self.targets[:, None], axis=1)]


def load(knows: list[str] | None) -> Data:
    """Of the project in the working directory. knows: what the teacher knows, None = as its params.yaml says."""
    params = load_params("traces", TracesParams)
    table = read_slate_table(DATA / "retrieve/slates.parquet")
    features = read_candidate_features(DATA / "retrieve/candidate_features.parquet")
    less = load_params("prompt", PromptParams).less_features  # the test set leaves them out by itself
    train, tests = load_slates(table, features, "train", less), load_test_set(read_slate_tables(), 0)
    names = train[0].features
    known = knows if knows is not None else params.scorer.features or list(names)
    bins, test_bins = feature_array(train, names), feature_array(tests.slates, names)
    own, test_own = feature_array(train, known), feature_array(tests.slates, known)
    boosters = lambdamart.fit_ensemble(own, relevance_array(train), params.seed, params.threads, params.scorer, params.scorer.members)
    scores, test_scores = lambdamart.mean_scores(boosters, own), lambdamart.mean_scores(boosters, test_own)
    edges = level_edges(scores, LEVELS)
    levels, test_levels = (np.searchsorted(edges, values, side="right") for values in (scores, test_scores))
    truth, chances = load_ground_truth(tests), None
    if truth:
        of_slate = dict(world_relevances(Path()).iter_rows())
        chances = torch.tensor([of_slate[slate.slate] for slate in train])
    return Data(
        as_input(bins),
        torch.tensor(levels),
        torch.tensor([slate.target_rank for slate in train]),
        np.array([slate.user for slate in train]),
        chances,
        as_input(test_bins),
        test_levels,
        tests.users,
        tests.targets,
        truth.chances_NK if truth else None,
    )


def as_input(bins_NKF: np.ndarray) -> Tensor:
    return one_hot(torch.tensor(bins_NKF).long().clamp(0, BINS - 1), BINS).flatten(-2).float()


def network(inputs: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1)) if hidden else nn.Linear(inputs, 1)


def log_chances(score_PK: Tensor) -> Tensor:
    """[P, K, L]: of each level."""
    return torch.log_softmax(-((torch.arange(LEVELS) - score_PK[..., None]) ** 2) / 2, dim=-1)


def likeliest(policy: nn.Module, slates_PKF: Tensor) -> NDArray[np.int64]:
    with torch.no_grad():
        return policy(slates_PKF)[..., 0].round().clamp(0, LEVELS - 1).long().numpy()


def ranks(levels: Tensor) -> Tensor:
    """[..., K] -> the place of each when sorted, ties as shown."""
    count = levels.shape[-1]
    earlier = torch.ones(count, count).tril(-1).bool()  # [candidate, rival]: the rival is shown before it
    own, rival = levels[..., :, None], levels[..., None, :]
    return ((rival > own) | ((rival == own) & earlier)).sum(-1)


def reward_table(params: RlParams, count: int) -> Tensor:
    """[K, K]: of a target of each initial rank that comes to each place, by the stage's own functions."""
    table = torch.zeros(count, count)
    for before in range(count):
        others = [rank for rank in range(count) if rank != before]
        for after in range(count):
            table[before, after] = reward_of_order((*others[:after], before, *others[after:]), before, params)
    return table


class Rewards:
    """Of the levels of candidates in the initial order, [P, ..., K] -> [P, ...]."""

    def __init__(self, data: Data, arm: Arm, params: RlParams):
        self.data, self.arm = data, arm
        self.table = reward_table(params.model_copy(update={"reward": arm.reward}), data.train_NKF.shape[1])

    def __call__(self, rows_P: Tensor, levels: Tensor) -> Tensor:
        ranks_PK = ranks(levels)
        more = [1] * (levels.dim() - 2)
        if self.arm.expected and self.data.chances_NK is not None:
            earned = self.table[torch.arange(levels.shape[-1]).expand_as(ranks_PK), ranks_PK]
            chances_PK = self.data.chances_NK[rows_P]
            return (earned * chances_PK.view(len(rows_P), *more, -1)).sum(-1) / chances_PK.sum(-1).view(-1, *more)
        target = self.data.target_N[rows_P].view(-1, *more, 1).expand(*levels.shape[:-1], 1)
        return self.table[target, ranks_PK.gather(-1, target)][..., 0]


def exact_loss(logp_PKL: Tensor, rows_P: Tensor, rewards: Rewards) -> Tensor:
    """An answer a slate; -sum over levels of pi(l) R(l), the other candidates as drawn."""
    drawn_PK = torch.distributions.Categorical(logits=logp_PKL).sample()
    count = drawn_PK.shape[1]
    changed = drawn_PK[:, None, None].repeat(1, count, LEVELS, 1)  # [P, candidate, level, K]
    changed[:, torch.arange(count), :, torch.arange(count)] = torch.arange(LEVELS)
    return -(logp_PKL.exp() * rewards(rows_P, changed)).sum((-1, -2)).mean()


def sampled_loss(logp_PKL: Tensor, rows_P: Tensor, rewards: Rewards) -> Tensor:
    """GROUP answers a slate, one advantage each: R minus the mean of the group, over its standard deviation."""
    drawn_PGK = torch.distributions.Categorical(logits=logp_PKL[:, None].expand(-1, GROUP, -1, -1)).sample()
    earned_PG = rewards(rows_P, drawn_PGK)
    advantage_PG = (earned_PG - earned_PG.mean(1, keepdim=True)) / (earned_PG.std(1, keepdim=True) + 1e-4)
    logp_PGK = logp_PKL[:, None].expand(-1, GROUP, -1, -1).gather(-1, drawn_PGK[..., None])[..., 0]
    return -(advantage_PG[..., None] * logp_PGK).sum(-1).mean()


def learn(data: Data, arm: Arm, params: RlParams, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    people = np.unique(data.users_N)
    chosen = rng.permutation(people)[: round(arm.share * len(people))]
    own = torch.tensor(np.flatnonzero(np.isin(data.users_N, chosen)))
    policy = network(data.train_NKF.shape[-1], arm.hidden)
    if arm.start:
        optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
        for _ in range(TEACHING):
            rows = torch.randint(len(data.target_N), (BATCH,))
            loss = ((policy(data.train_NKF[rows])[..., 0] - data.teacher_NK[rows]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    else:
        nn.init.constant_(list(policy.parameters())[-1], LEVELS / 2)
    rewards = Rewards(data, arm, params)
    begun = measured(data, policy, rewards)
    optimizer = torch.optim.Adam(policy.parameters(), lr=options.lr)
    loss_of, slates = (exact_loss, options.answers) if arm.exact else (sampled_loss, options.answers // GROUP)
    for _ in range(options.steps):
        rows = own[torch.randint(len(own), (slates,))]
        loss = loss_of(log_chances(policy(data.train_NKF[rows])[..., 0]), rows, rewards)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"begun": begun, "ended": measured(data, policy, rewards)}


def measured(data: Data, policy: nn.Module, rewards: Rewards) -> tuple[float, NDArray[np.float64]]:
    """The reward of the likeliest levels on the training slates, and NDCG@5 of each test slate."""
    levels_NK = torch.tensor(likeliest(policy, data.train_NKF))
    earned = float(rewards(torch.arange(len(levels_NK)), levels_NK).mean())
    return earned, data.ndcg(likeliest(policy, data.test_MKF))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(), help="with data/ingest, tokenize and retrieve")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--answers", type=int, default=96, help="a step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--knows", nargs="*", help="features that the teacher knows; by default those of traces.scorer.features")
    parser.add_argument("--rank-reward", default="ndcg", choices=["promotion", "ndcg", "auc"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="direct_policy", help="of the two files in bench/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with contextlib.chdir(options.project):
        data = load(options.knows)
        alpha = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["rl"]["alpha"]
    params = RlParams(alpha=alpha, rank_reward=options.rank_reward)
    incoming = data.ndcg(np.zeros_like(data.teacher_MK))
    teacher = data.ndcg(data.teacher_MK)
    lines = ["| arm | reward on training slates, before | after | NDCG@5, before | after | after minus before | after minus the teacher |"]
    lines += [
        "|" + "---|" * 7,
        f"| incoming | | | {incoming.mean():.4f} | | | |",
        f"| the teacher's levels | | | {teacher.mean():.4f} | | | |",
    ]
    figures: dict[str, Any] = {"incoming": float(incoming.mean()), "teacher": float(teacher.mean())}
    arms = [name for name in options.arms if data.truth is not None or not ARMS[name].expected]
    for name in arms:
        runs = [learn(data, ARMS[name], params, options, seed) for seed in options.seeds]
        before, after = (np.stack([run[when][1] for run in runs]) for when in ("begun", "ended"))
        earned = [float(np.mean([run[when][0] for run in runs])) for when in ("begun", "ended")]
        against = [interval(after - other, data.test_users) for other in (before, teacher)]
        figures[name] = {"reward": earned, "ndcg@5": [float(before.mean()), float(after.mean())], "minus": against}
        cells = [*(f"{value:.4f}" for value in (*earned, before.mean(), after.mean())), *map(shown, against)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    slates = f"{len(data.targets):,} test slates of {len(np.unique(data.test_users)):,} users, {len(data.target_N):,} training slates."
    write_lines(options.name, "RL on a project's slates without language", [*lines, "", slates], figures)


if __name__ == "__main__":
    main()
