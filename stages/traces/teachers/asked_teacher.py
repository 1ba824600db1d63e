"""A teacher that is asked questions and whose replies are read: the part that does not depend on the layout."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from stages.shared.generation.base import Reply, Sampling
from stages.shared.slates.slate import Catalog
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.asking import Asker, Question
from stages.traces.teachers.teacher import Proposal


class AskedTeacher(ABC):
    attempts: int | None = None

    def __init__(self, asker: Asker, sampling: Sampling, catalog: Catalog, targeted: bool):
        self.asker, self.sampling, self.catalog, self.targeted = asker, sampling, catalog, targeted

    def propose(self, slates: Sequence[ScoredSlate], attempt: int, begun: Sequence[str] = ()) -> list[Proposal]:
        """begun: what the teacher has said already of each slate, from which it goes on; "" or none: it begins."""
        questions = [self.question(scored) for scored in slates]
        if any(begun):
            questions = [replace(question, begun=text) for question, text in zip(questions, begun, strict=True)]
        replies = self.asker.ask(questions, replace(self.sampling, seed=self.sampling.seed + attempt, samples=1), attempt)
        proposals = []
        for reply, question, scored in zip(replies, questions, slates, strict=True):
            whole = replace(reply, text=question.begun + reply.text)
            proposals.append(Proposal("", None, reply.fault) if reply.fault else self.read(whole, question, scored))
        return proposals

    def target_sid(self, scored: ScoredSlate) -> str:
        """For a targeted teacher, who is shown the answer: where there are grades, a candidate of the highest, as acceptance asks for."""
        return self.catalog.sids[scored.slate.candidates[scored.slate.best_ranks[0]]]

    @abstractmethod
    def question(self, scored: ScoredSlate) -> Question: ...

    @abstractmethod
    def read(self, reply: Reply, question: Question, scored: ScoredSlate) -> Proposal: ...
