"""LambdaMART explains itself: its order, and what each feature adds to a score (SHAP), in the sentences of the layout `chat`."""

from collections.abc import Sequence

import numpy as np

from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.chat_trace import CITED_IN_ANSWER
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.teacher import Proposal, StatisticalTeacher

EXPLAINED = 3  # candidates, the first of the order


class RankerExplainedTeacher(StatisticalTeacher):
    """The statistical teacher's orders. In `chat` the trace says which evidence speaks for and against the first candidates, and the answer
    cites what adds most to the first; in `compact`, which has no words for that, it is the statistical teacher's."""

    def _written(self, scored: ScoredSlate, relevances: Sequence[int], order: tuple[int, ...]) -> Proposal:
        if not isinstance(self.layout, ChatLayout):
            return super()._written(scored, relevances, order)
        assert scored.contributions is not None
        weights = {rank: scored.contributions[rank].tolist() for rank in order[:EXPLAINED]}
        trace = self.layout.explained_trace(scored.slate, relevances, order, weights)
        return Proposal(trace, order, relevances=tuple(relevances), cited=self._cited(scored.contributions[order[0]]))

    def _cited(self, weights: np.ndarray) -> tuple[str, ...]:
        """The features that add most to a candidate's score, at most as many as an explanation names."""
        strongest = [place for place in np.argsort(-weights, kind="stable")[:CITED_IN_ANSWER] if weights[place] > 0]
        return tuple(self.layout.features[place] for place in strongest)
