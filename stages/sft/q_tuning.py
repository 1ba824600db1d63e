"""Q-Tuning (Wang et al. 2025, arXiv 2509.23873): which traces, and which of their tokens, are worth training on.

Each trace lies on a plane of error (the starting model's perplexity) and uncertainty (the mean entropy of what it predicts):

|               | low entropy   | high entropy |
|---------------|---------------|--------------|
| high error    | misconception | noise        |
| low error     | redundant     | calibration  |

Misconceptions and calibration data are kept, the others are dropped; of a misconception the tokens of the highest perplexity lose their
weight, a neighbour's counted in, so that no single word is torn out. The prompt, SIDs and answers are never pruned.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedModel

from stages.shared.lm.encoding import WeightedExample
from stages.shared.training.trainer import collate

NEIGHBOURS = 0.5  # lambda: the share of its two neighbours in a token's score
LOGITS = 1 << 26  # numbers held at once, 256 MB
QUADRANTS = ("noise", "misconception", "redundant", "calibration")


@dataclass(frozen=True)
class TokenErrors:
    """Of the C tokens of an example that count in the loss: places_C in the row, -log p of each, and the entropy there, in nats."""

    places_C: np.ndarray
    nll_C: np.ndarray
    entropy_C: np.ndarray


@dataclass(frozen=True)
class Plane:
    """Of N examples, indices into QUADRANTS: quadrant_N by the medians; kept_N: as what it is kept, -1 where it is dropped."""

    quadrant_N: np.ndarray
    kept_N: np.ndarray


def ranked(values_N: np.ndarray) -> np.ndarray:
    """[N] in (0, 1): the share of values below, half of the own place counted; ties by place."""
    places_N = np.empty(len(values_N))
    places_N[np.argsort(values_N, kind="stable")] = np.arange(len(values_N))
    return (places_N + 0.5) / len(values_N)


def plane(perplexity_N: np.ndarray, entropy_N: np.ndarray, keep: float) -> Plane:
    """Keeps the share `keep`, one example at least.

    With quantiles a, a misconception is among the highest a of perplexity and the lowest a of entropy, calibration data the other way
    round. The paper seeks a by bisection until the share is kept; here each example has the least a that keeps it, and the smallest of
    these are taken: the same, and exact. Where the two quadrants of the medians hold less than `keep`, a goes beyond 1/2.
    """
    error_N, uncertainty_N = ranked(perplexity_N), ranked(entropy_N)
    noise, misconception, redundant, calibration = range(4)
    is_high_error, is_high_uncertainty = error_N > 0.5, uncertainty_N > 0.5
    quadrant_N = np.where(
        is_high_error, np.where(is_high_uncertainty, noise, misconception), np.where(is_high_uncertainty, calibration, redundant)
    )
    as_misconception_N = np.maximum(1 - error_N, uncertainty_N)
    as_calibration_N = np.maximum(error_N, 1 - uncertainty_N)
    side_N = np.where(as_misconception_N < as_calibration_N, misconception, calibration)
    best = np.argsort(np.minimum(as_misconception_N, as_calibration_N), kind="stable")[: max(1, round(keep * len(error_N)))]
    kept_N = np.full(len(error_N), -1)
    kept_N[best] = side_N[best]
    return Plane(quadrant_N, kept_N)


def token_scores(nll_C: np.ndarray) -> np.ndarray:
    """[C]: (1 - lambda) ppl_i + lambda (ppl_{i-1} + ppl_{i+1}) / 2, a token at an end its own neighbour there."""
    perplexity_C = np.exp(nll_C)
    before_C, after_C = np.r_[perplexity_C[:1], perplexity_C[:-1]], np.r_[perplexity_C[1:], perplexity_C[-1:]]
    scores: np.ndarray = (1 - NEIGHBOURS) * perplexity_C + NEIGHBOURS * (before_C + after_C) / 2
    return scores


def pruned_places(errors: TokenErrors, is_protected_C: np.ndarray, keep: float) -> list[int]:
    """Of the tokens that are not protected, those of the highest scores beyond the share `keep`; ascending places in the row."""
    free_C = np.flatnonzero(~is_protected_C)
    count = len(free_C) - round(keep * len(free_C))
    worst = free_C[np.argsort(-token_scores(errors.nll_C)[free_C], kind="stable")[:count]]
    return sorted(int(place) for place in errors.places_C[worst])


def without_weight(example: WeightedExample, places: Collection[int]) -> WeightedExample:
    """The tokens stay, for those behind them read them; nothing is learnt from predicting them."""
    pruned = set(places)
    return replace(example, weights=[0.0 if place in pruned else weight for place, weight in enumerate(example.weights)])


@dataclass(frozen=True)
class Pruned:
    """tokens, pruned: that counted in the kept misconceptions, and how many of them no longer do."""

    examples: list[WeightedExample]
    plane: Plane
    tokens: int
    pruned: int

    def figures(self) -> dict[str, object]:
        """For PruningMetrics."""
        counts = {name: int((self.plane.quadrant_N == place).sum()) for place, name in enumerate(QUADRANTS)}
        kept = {
            name: int((self.plane.kept_N == place).sum())
            for place, name in enumerate(QUADRANTS)
            if name in ("misconception", "calibration")
        }
        return {"quadrants": counts, "kept": kept, "tokens": self.tokens, "pruned_tokens": self.pruned}


def pruned(
    examples: Sequence[WeightedExample],
    errors: Sequence[TokenErrors],
    answer_starts: Sequence[int],
    sid_ids: Collection[int],
    sample_keep: float,
    token_keep: float,
) -> Pruned:
    """answer_starts: the place in each example from which on all tokens are the answer's. The kept examples stay in their order."""
    perplexity_N = np.array([np.exp(error.nll_C.mean()) for error in errors])
    found = plane(perplexity_N, np.array([error.entropy_C.mean() for error in errors]), sample_keep)
    kept, tokens, dropped, sids = [], 0, 0, np.array(sorted(sid_ids))
    for example, error, start, side in zip(examples, errors, answer_starts, found.kept_N, strict=True):
        if side < 0:
            continue
        if QUADRANTS[side] == "misconception":
            is_protected_C = (error.places_C >= start) | np.isin(np.array(example.ids)[error.places_C], sids)
            places = pruned_places(error, is_protected_C, token_keep)
            tokens, dropped = tokens + len(error.places_C), dropped + len(places)
            example = without_weight(example, places)
        kept.append(example)
    return Pruned(kept, found, tokens, dropped)


@torch.no_grad()
def token_errors(model: PreTrainedModel, examples: Sequence[WeightedExample], pad_id: int) -> list[TokenErrors]:
    """Asked of the model as it is, without dropout; examples of like lengths at a time."""
    training, device = model.training, model.device
    model.eval()
    order = sorted(range(len(examples)), key=lambda place: -len(examples[place].ids))
    found: dict[int, TokenErrors] = {}
    while order:
        size = max(1, LOGITS // (len(examples[order[0]].ids) * model.config.get_text_config().vocab_size))
        places, order = order[:size], order[size:]
        batch = collate([examples[place] for place in places], pad_id)
        ids, positions = batch["input_ids"].to(device), batch["position_ids"].to(device)
        logits_BLV = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        for row, place in enumerate(places):
            counted_C = batch["weights"][row, 1:].gt(0).nonzero()[:, 0]
            logp_CV = torch.log_softmax(logits_BLV[row, counted_C.to(device)].float(), dim=-1)
            nll_C = -logp_CV.gather(1, ids[row, counted_C.to(device) + 1][:, None])[:, 0]
            entropy_C = -(logp_CV.exp() * logp_CV).sum(dim=1)
            found[place] = TokenErrors(counted_C.numpy() + 1, nll_C.double().cpu().numpy(), entropy_C.double().cpu().numpy())
    model.train(training)
    return [found[place] for place in range(len(examples))]
