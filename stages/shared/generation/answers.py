"""The answers of a model in memory."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from stages.shared.generation.base import Sampling
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.slates.answers import Answer
from stages.shared.slates.constraint import PermutationConstraint
from stages.shared.slates.layouts.encoded import EncodedLayout


def greedy_answers(
    model: PreTrainedModel,
    encoded: EncodedLayout,
    prompts: Sequence[Sequence[int]],
    constraints: Sequence[PermutationConstraint],
    max_tokens: int,
    batch_size: int,
) -> list[Answer]:
    """One to each prompt, whose slate's constraint it is. max_tokens: of an answer; batch_size: answers decoded at once."""
    tokenizer = encoded.tokenizer
    engine = TransformersEngine(model, tokenizer.pad_token_id, tokenizer.eos_token_id, batch_size)
    completions = engine.generate(prompts, Sampling(max_tokens), constraints)
    reasoning = encoded.layout.reasoning
    return [encoded.reader.read(one.token_ids, rule.names, reasoning) for [one], rule in zip(completions, constraints, strict=True)]
