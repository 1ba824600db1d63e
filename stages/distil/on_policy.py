"""On-policy distillation: what the student itself writes, judged token by token by a frozen teacher.

    L(theta) = E_x E_{y ~ Q_theta(. | x)} [ mean over n of D(P, Q_theta)(. | y_<n, x) ]

GKD with lambda = 1 (Agarwal et al. 2024, arXiv 2306.13649): D of divergence.py, prompts x of training slates, and no gradient through the
sampling of y. The paper takes the mean over the tokens of each y; here it is that over the tokens of a batch or a step (distil.loss_mean),
as in the other trainings. Every step samples anew, with the weights it has.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from stages.distil.divergence import divergence_forward, divergence_sum, own_forward
from stages.distil.params import DistilParams
from stages.shared.core.launch import rank
from stages.shared.generation.base import Sampling
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.lm.encoding import WeightedExample
from stages.shared.slates.constraint import PermutationConstraint
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.slate import Slate
from stages.shared.training.trainer import collate


@dataclass(frozen=True)
class StudentRollouts:
    """Of the student, decoded freely; the constraints only guess ahead. drafts: prompt -> its guesses."""

    encoded: EncodedLayout
    params: DistilParams
    drafts: dict[tuple[int, ...], PermutationConstraint]

    @classmethod
    def of(cls, slates: Sequence[Slate], encoded: EncodedLayout, params: DistilParams) -> "StudentRollouts":
        constraints = encoded.constraints(slates, enforced=False)
        prompts = encoded.prompts(slates)
        return cls(encoded, params, {tuple(prompt): rule for prompt, rule in zip(prompts, constraints, strict=True)})

    def sample(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], seed: int, first_place: int = 0) -> list[WeightedExample]:
        """One rollout a prompt, whose tokens weigh 1. Prompt i draws as the one at place first_place + i."""
        tokenizer = self.encoded.tokenizer
        engine = TransformersEngine(model, tokenizer.pad_token_id, tokenizer.eos_token_id, self.params.engine.batch_size)
        sampling = Sampling(self.params.max_tokens, self.params.temperature, seed=seed)
        places = range(first_place, first_place + len(prompts))
        answers = engine.generate(prompts, sampling, [self.drafts[tuple(prompt)] for prompt in prompts], places)
        rows = zip(prompts, (completion.token_ids for [completion] in answers), strict=True)
        return [WeightedExample([*prompt, *said], [0.0] * len(prompt) + [1.0] * len(said)) for prompt, said in rows]


@dataclass(frozen=True)
class OnPolicy:
    """The TrainingObjective (stages/shared/training/trainer.py) whose rows are prompts."""

    teacher: PreTrainedModel
    rollouts: StudentRollouts
    params: DistilParams

    def forward(self, model: PreTrainedModel) -> AbstractContextManager[None]:
        return divergence_forward(model, self.teacher, self.params)

    def batches(self, model: PreTrainedModel, batches: Sequence[dict[str, Tensor]], step: int) -> list[dict[str, Tensor]]:
        """The prompts of one step, each with what the student says to it now."""
        prompts = [
            ids[mask.bool()].tolist() for batch in batches for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        with own_forward(model):
            # Each (step, process) draws for itself.
            rows = iter(self.rollouts.sample(model, prompts, self.params.seed * 100_003 + step, rank() * len(prompts)))
        gather = partial(collate, pad_id=self.rollouts.encoded.tokenizer.pad_token_id)
        return [gather([next(rows) for _ in batch["input_ids"]]) for batch in batches]


def prompt_rows(prompts: Sequence[list[int]]) -> list[WeightedExample]:
    return [WeightedExample(prompt, [0.0] * len(prompt)) for prompt in prompts]


@torch.no_grad()
def gap(
    student: PreTrainedModel, teacher: PreTrainedModel, rows: Sequence[WeightedExample], params: DistilParams, pad_id: int
) -> dict[str, float]:
    """For metrics.TeacherGap. rows: rollouts of the student."""
    total = 0.0
    for start in range(0, len(rows), params.batch_size):
        batch = {name: part.to(student.device) for name, part in collate(rows[start : start + params.batch_size], pad_id).items()}
        total += float(divergence_sum(student, teacher, batch["input_ids"], batch["position_ids"], batch["weights"], params))
    tokens = sum(sum(row.weights) for row in rows)
    return {"divergence": total / tokens, "length": tokens / len(rows)}
