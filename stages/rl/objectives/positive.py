"""Right answers as examples, beside an objective's own loss: the positive-example LM loss of VAPO (Yue et al. 2025, arXiv 2504.05118, 4.3).

With mu = rl.positive_nll, the tokens of the step's right answers add -mu log pi(token) each. Under rl.credit: relevance the examples are
the valid answers without their relevances, whatever they earned: quotes and order follow from prompt and relevances, so a valid answer
shows how it is done, and the policy keeps sorting well while its relevances move. The sum is over all tokens of the step, as in DAPO, not
over those of the examples: where few answers are right, few are copied.
"""

from collections.abc import Sequence

from torch import Tensor

from stages.rl.credit import Credit
from stages.rl.objectives.parts import Part, Whole
from stages.rl.params import RlParams
from stages.rl.rollouts import Group


def example_tokens(groups: Sequence[Group], credits: Sequence[Credit] | None) -> list[list[float]]:
    """1 on the tokens to copy, a row an answer, groups behind each other. credits: of the same answers, under rl.credit: relevance."""
    answers = [(completion, is_one) for group in groups for completion, is_one in zip(group.completions, group.rights(), strict=True)]
    if credits is None:
        return [[float(is_one)] * len(completion.token_ids) for completion, is_one in answers]
    rows = []
    for (completion, _), credit in zip(answers, credits, strict=True):
        row = [float(bool(credit.places))] * len(completion.token_ids)
        for place in credit.places:
            row[place] = 0.0
        rows.append(row)
    return rows


def positive_loss(part: Part, whole: Whole, params: RlParams) -> Tensor:
    assert part.example_BT is not None
    return -params.positive_nll * (part.logp_BT * part.example_BT * part.mask_BT).sum() / whole.tokens
