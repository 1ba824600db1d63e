"""A language model as the teacher in the layout `chat`: it reads the student's dialogue through a chat template of its own."""

import json
from dataclasses import replace

from stages.shared.generation.base import Reply, Sampling
from stages.shared.slates.json_answers import read_json_answer
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.dialogue import THINK_MARKS
from stages.shared.slates.layouts.marks import ASSISTANT, SYSTEM, THINK, THINK_END, USER, letters
from stages.shared.slates.slate import Catalog
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.answer_faults import prose_fault
from stages.traces.teachers.asked_teacher import AskedTeacher
from stages.traces.teachers.asking import Asker, Question
from stages.traces.teachers.teacher import Proposal

WRITTEN = "Write the four steps out, a line for each candidate in the third, and the object after them."
SHOWN = "The user took {sid} next: explain why the evidence speaks for it, and put it first. Do not say that you know."
OBJECT = '{"explanation"'


class ChatTeacher(AskedTeacher):
    """The trace is what it writes before the object. Its own thoughts are switched off; what stands in a think block all the same is no
    part of the trace."""

    def __init__(self, asker: Asker, sampling: Sampling, layout: ChatLayout, catalog: Catalog, targeted: bool):
        super().__init__(asker, sampling, catalog, targeted)
        # A student that answers at once learns from the same traces' answers, so the teacher reasons in any case.
        self.layout = replace(layout, options=layout.options.model_copy(update={"reasoning": True}))

    def question(self, scored: ScoredSlate) -> Question:
        """The dialogue as the student will see it, with thinking switched off and what is asked of the teacher beyond it."""
        system, _, user = self.layout.prompt(scored.slate).partition(ASSISTANT)[0].partition(USER)
        rules = [system.removeprefix(SYSTEM), WRITTEN]
        if self.targeted:
            rules.append(SHOWN.format(sid=self.target_sid(scored)))
        return Question(scored.slate.slate, "\n".join(rules), USER + user + ASSISTANT + THINK + THINK_END, dialogue=True)

    def read(self, reply: Reply, question: Question, scored: ScoredSlate) -> Proposal:
        spoken = reply.text
        for _, closed in THINK_MARKS:
            spoken = spoken.rpartition(closed)[2]
        trace, begun, rest = spoken.partition(OBJECT)
        trace = trace.strip()
        if reply.finish != "stop":
            return Proposal(trace, None, "unfinished")
        answer = read_json_answer(begun + rest, self.layout.names(scored.slate))
        fault = prose_fault(spoken, question) or answer.fault
        if fault or answer.order is None or not trace:
            return Proposal(trace, None, fault or "malformed")
        explanation = str(json.loads(begun + rest)["explanation"])
        return Proposal(trace, answer.order, relevances=self._relevances(trace, len(answer.order)), explanation=explanation)

    def _relevances(self, trace: str, count: int) -> tuple[int, ...]:
        """The relevance of each candidate in the order shown; empty unless each has one."""
        levels = self.layout.claims(trace).relevances
        names = [letter.strip() for letter in letters(count)]
        if set(levels) != set(names) or max(levels.values()) >= self.layout.levels:
            return ()
        return tuple(levels[name] for name in names)
