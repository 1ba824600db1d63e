"""One step of learning from a batch of rollouts: advantages, old probabilities, and the optimizer steps."""

import math
from collections.abc import Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from stages.rl.allocation.d3s import share_at, telling_tokens, tokens_kept, widest
from stages.rl.credit import Credit, credits_of, relevance_loss
from stages.rl.distribution import Drawn, masks_along, sampler_logprobs
from stages.rl.logprobs import response_logprobs
from stages.rl.objectives.advantages import gdpo_normalised, gdpo_sums
from stages.rl.objectives.choose import OBJECTIVES
from stages.rl.objectives.covariance import covariances
from stages.rl.objectives.lessons import lesson_tokens, lessons_loss
from stages.rl.objectives.parts import Part, Whole
from stages.rl.objectives.positive import example_tokens, positive_loss
from stages.rl.params import RlParams
from stages.rl.policy import NOT_FINITE, Policy, all_sum
from stages.rl.rewards.group import part_weights
from stages.rl.rollouts import Group, Rollouts
from stages.shared.core.errors import StageError
from stages.shared.core.launch import world_size
from stages.shared.slates.constraint import TokenMask

MEASURED = ("loss", "grad_norm", "clipped", "logprob_gap", "truncated", "kl", "learnt")


class Targets(NamedTuple):
    """What the step fixes before its first update, one row an answer, groups behind each other.

    starts: the first row of each group, and the number of all. passes: the groups of each. kept: tokens of each pass that are learnt from.
    selected: bool of each token that counts, on the CPU. credits: of each answer, where rl.credit gives relevances their own.
    lesson_tokens: all that rl.sorting_nll and rl.quoting_nll may call right.
    """

    starts: list[int]
    passes: list[Any]
    kept: list[int]
    advantages: Tensor
    whole: Whole
    sampler: list[list[float]]
    selected: list[Tensor] | None
    credits: list[Credit] | None
    lesson_tokens: tuple[int, ...]


class BeforeUpdates(NamedTuple):
    """What a pass was before the step's first update: [B, T]. chosen: D3S's tokens; None: all."""

    logp_BT: Tensor
    reference_BT: Tensor | None
    chosen_BT: Tensor | None


def update(
    policy: Policy, rollouts: Rollouts, params: RlParams, pad_id: int, reference: Any = None, seed: int = 0, step: int = 0
) -> dict[str, float]:
    """`params.updates` optimizer steps on the kept groups. Ranks without any group still take part, with a loss of zero.

    reference: a frozen model, for params.kl. seed: of this step, for objectives that draw tokens. step: from 0. StageError where the loss
    is not finite.
    """
    totals = dict.fromkeys(MEASURED, 0.0)
    groups, advantages_N = learnt_from(rollouts.kept, step_advantages(rollouts.kept, params), params, step)
    token_share = share_at(step, params.allocation.d3s_tokens, params.allocation.d3s_relax)
    targets = fix_targets(groups, advantages_N, params, seed, token_share)
    totals |= {"learnt_tokens": float(sum(targets.kept))} if params.allocation.d3s_tokens < 1 else {}
    if targets.whole.tokens == 0:
        return totals
    totals["learnt"] = float(targets.starts[-1])
    microbatches = len(targets.passes)
    first: dict[int, BeforeUpdates] = {}
    for update_number in range(params.updates):
        for number, indices in enumerate(targets.passes):
            if len(indices):
                part = make_part(policy, groups, indices, params, targets, pad_id, reference, first.get(number))
                # Before the first optimizer step the trainer's numbers are those of the policy that sampled, but for rounding.
                if number not in first:
                    chosen = None
                    if token_share < 1:
                        assert part.entropy_BT is not None
                        chosen = telling_tokens(part.advantage_B, part.entropy_BT, part.mask_BT, targets.kept[number])
                    first[number] = BeforeUpdates(part.logp_BT.detach(), part.reference_BT, chosen)
                    for name, value in gaps(part, params, targets.sampler[targets.starts[indices[0]] :]).items():
                        totals[name] = max(totals[name], value) if name == "logprob_gap" else totals[name] + value / microbatches
                if (chosen_BT := first[number].chosen_BT) is not None:
                    part = part._replace(mask_BT=part.mask_BT * chosen_BT)
                loss, clipped = OBJECTIVES[params.objective].loss(part, targets.whole, params)
                if targets.credits is not None and part.beside_BTL is not None:
                    rows = slice(targets.starts[indices[0]], targets.starts[indices[-1] + 1])
                    levels = len(groups[0].task.constraint.layout.relevances)
                    loss = loss + relevance_loss(part.beside_BTL[..., :levels], targets.credits[rows]) / targets.whole.tokens
                    if targets.lesson_tokens:
                        taught = lessons_loss(part.beside_BTL[..., levels:], targets.lesson_tokens, targets.credits[rows], params)
                        loss = loss + taught / targets.whole.tokens
                if params.positive_nll:
                    loss = loss + positive_loss(part, targets.whole, params)
                clipped_share = float(clipped)
            else:
                loss, clipped_share = policy.zero_loss(), 0.0
            if not math.isfinite(loss.item()):
                raise StageError(f"rl: the loss is {loss.item()} at update {update_number + 1} of this step; {NOT_FINITE}")
            # The losses are shares of one sum over the step; policy.step divides by the number of microbatches.
            policy.backward(loss * microbatches)
            totals["loss"] += loss.item() / params.updates
            totals["clipped"] += clipped_share / microbatches / params.updates
        totals["grad_norm"] += policy.step() / params.updates
    return totals


def learnt_from(groups: Sequence[Group], advantages_N: Tensor, params: RlParams, step: int) -> tuple[Sequence[Group], Tensor]:
    """What D3S leaves of the groups, and of the advantages, which stay those within the whole groups."""
    share = share_at(step, params.allocation.d3s_share, params.allocation.d3s_relax)
    if share == 1 or not groups:
        return groups, advantages_N
    values, orders = advantages_N.tolist(), [answer.order for group in groups for answer in group.answers]
    starts = [0, *accumulate(len(group.rewards) for group in groups)]
    spans = [range(len(values))] if params.allocation.d3s_across else [range(first, last) for first, last in pairwise(starts)]
    chosen = sorted(
        span[place]
        for span in spans
        for place in widest([values[row] for row in span], round(share * len(span)), [orders[row] for row in span])
    )
    rows_of = [[row - first for row in chosen if first <= row < last] for first, last in pairwise(starts)]
    return [group.some(rows) for group, rows in zip(groups, rows_of, strict=True) if rows], advantages_N[chosen]


def fix_targets(groups: Sequence[Group], advantages_N: Tensor, params: RlParams, seed: int, token_share: float) -> Targets:
    completions = [completion for group in groups for completion in group.completions]
    sampler = [sampler_logprobs(completion, params.temperature, params.constrained) for completion in completions]
    counts = [len(row) * is_counted for row, is_counted in zip(sampler, counted_rows(groups, params), strict=True)]
    starts = [0, *accumulate(len(group.rewards) for group in groups)]
    # Every rank runs the same number of microbatches, empty ones included: gradients are averaged across ranks at each of them,
    # and a rank that skipped one would leave the others waiting.
    passes = np.array_split(np.arange(len(groups)), max(1, -(-params.prompts // params.micro_prompts)))
    of_passes = [sum(counts[starts[own[0]] : starts[own[-1] + 1]]) if len(own) else 0 for own in passes]
    kept_tokens = [tokens_kept(count, token_share) for count in of_passes]
    # The unit of a mean is the whole step over all ranks; DeepSpeed and DDP average gradients, so the world size divides it.
    whole = Whole(all_sum(sum(kept_tokens)) / world_size(), all_sum(len(completions)) / world_size())
    selected = None
    if (select := OBJECTIVES[params.objective].select) and groups:
        kept = [torch.tensor(row[:count]) for row, count in zip(sampler, counts, strict=True)]
        gains = [gain.expand(len(row)) for gain, row in zip(advantages_N, kept, strict=True)]
        chosen = select(covariances(torch.cat(kept), torch.cat(gains)), params, torch.Generator().manual_seed(seed))
        selected = list(chosen.split(counts))
    credits = None
    if params.credit == "relevance":
        batch_std = batch_moments(torch.tensor([reward for group in groups for reward in group.rewards]))[1]
        credits = [credit for group in groups for credit in credits_of(group, params, batch_std)]
    taught = sorted({token for group in groups for token in lesson_tokens(group.task, params)})
    return Targets(starts, passes, kept_tokens, advantages_N, whole, sampler, selected, credits, tuple(taught))


def step_advantages(groups: Sequence[Group], params: RlParams) -> Tensor:
    """Of each answer [N], groups behind each other. Every process calls it: some objectives normalise over the rewards of all."""
    # Groups of one size are one tensor.
    blocks = [list(run) for _, run in groupby(groups, key=lambda group: len(group.rewards))]
    if params.reward == "gdpo":
        weights = part_weights(params)
        parts = (torch.tensor([[group.parts[name] for group in block] for name in weights]) for block in blocks)
        sums_N = joined([gdpo_sums(parts_KPG, list(weights.values())) for parts_KPG in parts])
        return gdpo_normalised(sums_N, *batch_moments(sums_N))
    rewards = [torch.tensor([group.rewards for group in block]) for block in blocks]
    batch_std = batch_moments(joined(rewards))[1]
    return joined([OBJECTIVES[params.objective].advantages(rewards_PG, batch_std) for rewards_PG in rewards])


def joined(blocks: Sequence[Tensor]) -> Tensor:
    return torch.cat([block.flatten() for block in blocks]) if blocks else torch.zeros(0)


def batch_moments(values: Tensor) -> tuple[float, float]:
    """Mean and sample standard deviation over all processes."""
    count = all_sum(float(values.numel()))
    if count < 2:
        return 0.0, 0.0
    mean = all_sum(float(values.double().sum())) / count
    return mean, math.sqrt(all_sum(float(((values.double() - mean) ** 2).sum())) / (count - 1))


def counted_rows(groups: Sequence[Group], params: RlParams) -> list[bool]:
    """Which answers the loss is computed from: under overlong filtering (DAPO, section 3.4) none that was cut at max_tokens."""
    answers = [answer for group in groups for answer in group.answers]
    return [params.overlong != "filter" or answer.fault != "unfinished" for answer in answers]


def make_part(
    policy: Policy,
    groups: Sequence[Group],
    indices: Sequence[int],
    params: RlParams,
    targets: Targets,
    pad_id: int,
    reference: Any,
    first: BeforeUpdates | None,
) -> Part:
    """The groups at `indices`, which follow one another."""
    batch = [groups[index] for index in indices]
    rows = slice(targets.starts[indices[0]], targets.starts[indices[-1] + 1])
    prompts = [group.task.prompt for group in batch]
    responses = [[completion.token_ids for completion in group.completions] for group in batch]
    beside = (*batch[0].task.constraint.layout.relevances, *targets.lesson_tokens) if targets.credits is not None else ()
    drawn = Drawn(params.temperature, response_masks(batch), beside)
    scores = policy.score(prompts, responses, pad_id, drawn)
    logp, mask = scores.logp, scores.mask
    reference_BT = first.reference_BT if first else None
    if reference is not None and first is None:
        with policy.autocast(), torch.no_grad():
            reference_BT = response_logprobs(reference, prompts, responses, pad_id, drawn).logp
    sampler = padded(targets.sampler[rows], logp)
    trainer = first.logp_BT if first else logp.detach()
    if params.importance_cap:
        # Truncated importance sampling (Yao et al. 2025, Your Efficient RL Framework Secretly Brings You Off-Policy RL Training): what
        # differs between engine and trainer is a weight, and only what the updates change is clipped.
        old, weight = trainer, torch.exp(trainer - sampler).clamp(max=params.importance_cap)
    else:
        old, weight = sampler, None
    counted = torch.tensor(counted_rows(batch, params), device=mask.device)
    credits = targets.credits[rows] if targets.credits is not None else None
    rights = [is_one for group in batch for is_one in group.rights()]
    return Part(
        logp,
        old,
        mask if params.overlong != "filter" else mask * counted[:, None],
        targets.advantages[rows].to(logp.device),
        torch.tensor([reward for group in batch for reward in group.rewards], device=logp.device),
        torch.tensor(rights, device=logp.device),
        weight,
        reference_BT,
        padded([row.tolist() for row in targets.selected[rows]], logp).bool() if targets.selected is not None else None,
        padded([credit.others_T.tolist() for credit in credits], logp) if credits is not None else None,
        scores.beside,
        padded(example_tokens(batch, credits), logp) if params.positive_nll else None,
        scores.entropy,
    )


def response_masks(groups: Sequence[Group]) -> list[TokenMask] | None:
    """Of the constraint that the answers were sampled under, one a token, answers behind each other; None where it closed nothing.

    A budget of thoughts (prompt.think_tokens) closes tokens without rl.constrained, too.
    """
    if not any(group.task.constraint.closes for group in groups):
        return None
    return [mask for group in groups for one in group.completions for mask in masks_along(group.task.constraint, one.token_ids)]


def padded(rows: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """[B, T], zero behind each row."""
    values = torch.zeros_like(like, requires_grad=False)
    for number, row in enumerate(rows):
        values[number, : len(row)] = torch.tensor(row, device=values.device, dtype=values.dtype)
    return values


def gaps(part: Part, params: RlParams, sampler_rows: Sequence[Sequence[float]]) -> dict[str, float]:
    """How far the trainer is from the sampler before the first update, and the policy from the reference."""
    logp = part.logp_BT.detach()
    sampler = padded(sampler_rows[: len(logp)], logp)
    tokens = part.mask_BT.sum().clamp_min(1)
    found = {"logprob_gap": float(((logp - sampler).abs() * part.mask_BT).sum() / tokens)}
    if params.importance_cap:
        is_cut = (logp - sampler).exp() > params.importance_cap
        found["truncated"] = float((is_cut * part.mask_BT).sum() / tokens)
    if part.reference_BT is not None:
        difference = part.reference_BT - logp
        found["kl"] = float(((difference.exp() - difference - 1) * part.mask_BT).sum() / tokens)
    return found
