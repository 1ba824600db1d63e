"""A language model as the teacher in the layout `chat`: it reads the student's dialogue through a chat template of its own."""

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from stages.shared.generation.base import Engine, Sampling
from stages.shared.slates.json_answers import read_json_answer
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.dialogue import rendered_prompt, think_marks
from stages.shared.slates.layouts.marks import ASSISTANT, THINK, THINK_END, USER, letters
from stages.shared.slates.slate import RELEVANCE_LEVELS, Catalog
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teacher import Proposal

WRITTEN = "Write the three steps out, a line for each candidate in the third, and the object after them."
SHOWN = "The user took {sid} next: explain why the evidence speaks for it, and put it first. Do not say that you know."
OBJECT = '{"explanation"'


class ChatTeacher:
    """The trace is what it writes before the object. Its own thoughts are switched off; what stands in a think block all the same is no
    part of the trace."""

    attempts: int | None = None

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        layout: ChatLayout,
        catalog: Catalog,
        targeted: bool,
    ):
        self.engine, self.tokenizer, self.sampling = engine, tokenizer, sampling
        self.catalog, self.targeted = catalog, targeted
        # A student that answers at once learns from the same traces' answers, so the teacher reasons in any case.
        self.layout = replace(layout, options=layout.options.model_copy(update={"reasoning": True}))

    def propose(self, slates: Sequence[ScoredSlate], attempt: int) -> list[Proposal]:
        prompts = [self.encode(scored) for scored in slates]
        completions = self.engine.generate(prompts, replace(self.sampling, seed=self.sampling.seed + attempt, samples=1))
        return [self.read(samples[0].token_ids, scored) for samples, scored in zip(completions, slates, strict=True)]

    def encode(self, scored: ScoredSlate) -> list[int]:
        system, _, user = self.layout.prompt(scored.slate).partition(ASSISTANT)[0].partition(USER)
        rules = [system, WRITTEN]
        if self.targeted:
            rules.append(SHOWN.format(sid=self.catalog.sids[scored.slate.candidates[scored.slate.target_rank]]))
        dialogue = "\n".join(rules) + USER + user + ASSISTANT + THINK + THINK_END
        return list(self.tokenizer.encode(rendered_prompt(dialogue, self.tokenizer), add_special_tokens=False))

    def read(self, completion: Sequence[int], scored: ScoredSlate) -> Proposal:
        """completion: generated ids of the teacher's tokenizer."""
        ids = list(completion)
        ended = bool(ids) and ids[-1] == self.tokenizer.eos_token_id
        text = str(self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False))
        said = text.rpartition(think_marks(self.tokenizer)[1])[2]
        trace, found, rest = said.partition(OBJECT)
        trace = trace.strip()
        if not ended:
            return Proposal(trace, None, "unfinished")
        answer = read_json_answer(found + rest, self.layout.names(scored.slate))
        if answer.order is None or not trace:
            return Proposal(trace, None, answer.fault or "malformed")
        return Proposal(trace, answer.order, relevances=self._relevances(trace, len(answer.order)))

    def _relevances(self, trace: str, count: int) -> tuple[int, ...]:
        """The relevance of each candidate in the order shown; empty unless each has one."""
        given = self.layout.claims(trace).relevances
        names = [letter.strip() for letter in letters(count)]
        if set(given) != set(names) or max(given.values()) >= RELEVANCE_LEVELS:
            return ()
        return tuple(given[name] for name in names)
