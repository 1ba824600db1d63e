"""Rows that teach a reasoning model's answers: without its thoughts (answer_only), or one half with and one without (race).

answer_only. The order that the teacher comes to after thinking is the target of a prompt whose think block is closed already. (GR2's
Technical Report, arXiv 2606.31984, has a second reinforcement learning without the chain of thought instead, and reports that just dropping
the chain costs 6 to 7 % of R@1. Learning the answers is sequence-level distillation, Kim and Rush 2016, arXiv 1606.07947.)

race. What OneReason (Kuaishou 2026, arXiv 2606.06260) says, by public notes: thinking has no advantage over answering at once until
reinforcement learning has specialised on one domain, after which models are unified by rejection-sampling fine-tuning or on-policy
distillation; and of 64 samples 32 are drawn with thinking and 32 without, and merged. Our choice, for one domain: half of the rows are
slates with the teacher's own thoughts and answer, half are slates with its answer alone, in one training, whose one model is then measured
both ways (rankers `distil` and `distil_direct`). Neither the target nor a reward chooses among the answers: of ten candidates, choosing by
the target would teach luck.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from stages.distil.answers import Answered
from stages.distil.params import DistilParams
from stages.shared.core.errors import StageError
from stages.shared.lm.encoding import WeightedExample, encode, epochs
from stages.shared.slates.layouts.encoded import EncodedLayout

WITH_THOUGHTS, AT_ONCE = "with_thoughts", "at_once"


def taught(answers: Sequence[Answered], params: DistilParams) -> list[Answered]:
    """Those that are permutations. StageError where none is."""
    if valid := [one for one in answers if one.answer.valid]:
        return valid
    faults = dict(Counter(one.answer.fault for one in answers))
    raise StageError(
        f"params.yaml: distil.teacher: none of its answers to {len(answers)} slates is a permutation ({faults}): raise distil.max_tokens, "
        "set distil.constrained: true, or name a model that answers"
    )


def answer_rows(answers: Sequence[Answered], params: DistilParams, forms: Mapping[str, EncodedLayout]) -> dict[str, list[WeightedExample]]:
    """One row an answer in each of the forms, which are in the student's tokens."""
    rows = {AT_ONCE: rows_at_once(answers, forms[AT_ONCE])}
    if WITH_THOUGHTS in forms:
        rows[WITH_THOUGHTS] = rows_with_thoughts(answers, forms[WITH_THOUGHTS].reader.think_end, params.reasoning_weight)
    return rows


def rows_at_once(answers: Sequence[Answered], encoded: EncodedLayout) -> list[WeightedExample]:
    """encoded: without reasoning."""
    layout, documents = encoded.layout, []
    for one in answers:
        assert one.answer.order is not None
        prompt = layout.prompt(one.slate)
        prompt = encoded.fitted(prompt) if layout.dialogue else prompt
        documents.append([(prompt, 0.0), (layout.answer(one.slate, one.answer.order), 1.0)])
    return encode(documents, encoded.tokenizer)


def rows_with_thoughts(answers: Sequence[Answered], think_end: int, reasoning_weight: float) -> list[WeightedExample]:
    """The teacher's own tokens, which are the student's. The end of thinking counts with the answer, as in sft."""
    rows = []
    for one in answers:
        thought = one.said.index(think_end)
        weights = [0.0] * len(one.prompt) + [reasoning_weight] * thought + [1.0] * (len(one.said) - thought)
        rows.append(WeightedExample([*one.prompt, *one.said], weights))
    return rows


def taken(rows: Mapping[str, list[WeightedExample]], params: DistilParams) -> dict[str, list[WeightedExample]]:
    """As many as the run takes, epoch after epoch, each in a new random order; of several kinds equally many."""
    rng = np.random.default_rng(params.seed)
    chosen = {}
    for place, (kind, own) in enumerate(rows.items()):
        needed = params.rows_taken // len(rows) + (place < params.rows_taken % len(rows))
        chosen[kind] = [own[i] for i in epochs(len(own), needed, rng)]
    return chosen
