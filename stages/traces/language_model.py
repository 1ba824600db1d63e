"""A language model as the teacher: any engine, any tokenizer, the same loop as the statistical one."""

import re
from collections.abc import Sequence
from dataclasses import replace

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stages.shared.generation.base import Engine, Sampling
from stages.shared.slates.answers import AnswerReader
from stages.shared.slates.prompts import (
    ASSISTANT,
    END,
    RELEVANCE_LEVELS,
    SPECIAL_TOKENS,
    THINK,
    THINK_END,
    USER,
    Catalog,
    PromptParams,
    letters,
    slate_prompt,
    template_words,
)
from stages.shared.slates.sids import SID_BEGIN, SID_END
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teacher import Proposal

TOP = RELEVANCE_LEVELS - 1
# A neutral analyst's voice, three steps, items cited by SID, evidence before the item it speaks of.
INSTRUCTION = f"""You analyse a recommendation log. You are given the items a user took, oldest first, the commonest categories among them,
and candidates in the order of a retriever. Every item is written as a semantic ID, from {SID_BEGIN} to {SID_END}. Before each candidate
stand its letter and its facts, each a level from 0 to 9: co co-occurrence with the last items, tr transitions from them,
ca shared categories, po popularity, re recency, sc score of the retriever. Order the candidates by how likely the user takes them next.
Reason first, in three steps and in this layout, citing only letters, facts and IDs that are given:
 1 pattern: the categories that matter 2 link: the candidate most linked to the history, as its co fact, letter and ID
 3 match: every candidate in the given order, each as its letter and a strength from s0 (least) to s{TOP} (most), as in A s12 B s3
 best the strongest candidate, as its letter, the two facts that speak most for it, and its ID
Then close the reasoning with {THINK_END}, write the IDs of all candidates, best first, with nothing between them, and end with {END}.
"""
SHOWN = "The user took {sid} next: explain why the evidence speaks for it, and put it first.\n"

_RELEVANCE = re.compile(r"\b([A-Z])\s+s(\d+)\b")


class LanguageModelTeacher:
    """Reads answers from the teacher's text, marks kept, through a tokenizer of the layout alone: the teacher's own vocabulary need not
    hold a token for each SID, as the student's does."""

    attempts: int | None = None

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        catalog: Catalog,
        options: PromptParams,
        targeted: bool,
    ):
        self.engine, self.tokenizer, self.sampling = engine, tokenizer, sampling
        self.catalog, self.options, self.targeted = catalog, options, targeted
        self.layout = layout_tokenizer(catalog.sids)
        self.reader = AnswerReader(self.layout)

    def propose(self, slates: Sequence[ScoredSlate], attempt: int) -> list[Proposal]:
        prompts = [self.encode(scored) for scored in slates]
        completions = self.engine.generate(prompts, replace(self.sampling, seed=self.sampling.seed + attempt, samples=1))
        return [self.read(samples[0].token_ids, scored) for samples, scored in zip(completions, slates, strict=True)]

    def encode(self, scored: ScoredSlate) -> list[int]:
        """The instruction, then the slate as the student will see it; through the chat template where the tokenizer has one."""
        preface = INSTRUCTION
        if self.targeted:
            preface += SHOWN.format(sid=self.catalog.sids[scored.slate.candidates[scored.slate.target_rank]])
        prompt = slate_prompt(scored.slate, self.catalog, self.options)
        if not self.tokenizer.chat_template:
            return list(self.tokenizer.encode(preface + prompt, add_special_tokens=False))
        content = prompt.removeprefix(USER).removesuffix(ASSISTANT + THINK)
        messages = [{"role": "system", "content": preface}, {"role": "user", "content": content}]
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def read(self, completion: Sequence[int], scored: ScoredSlate) -> Proposal:
        """completion: generated ids of the teacher's tokenizer."""
        ids = list(completion)
        ended = bool(ids) and ids[-1] == self.tokenizer.eos_token_id  # its own end token takes the place of ours
        text = str(self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False))
        text = text.strip().removeprefix(THINK) + (END if ended else "")
        trace, closed, _ = text.partition(THINK_END)
        trace = " " + trace.strip()  # as the layout begins
        sids = [self.catalog.sids[item] for item in scored.slate.candidates]
        answer = self.reader.read(self._ids(text), [self._ids(sid) for sid in sids])
        if not closed or answer.order is None:
            return Proposal(trace, None, answer.fault or "malformed")
        return Proposal(trace, answer.order, relevances=written_relevances(trace, len(sids)))

    def _ids(self, text: str) -> list[int]:
        return list(self.layout.encode(text, add_special_tokens=False))


def written_relevances(trace: str, count: int) -> tuple[int, ...]:
    """The relevance word after the letter of each of `count` candidates, by incoming rank; empty unless each has exactly one."""
    pairs = _RELEVANCE.findall(trace)
    relevance_by_letter = {f" {letter}": int(relevance) for letter, relevance in pairs}
    if len(pairs) != count or set(relevance_by_letter) != set(letters(count)) or max(relevance_by_letter.values()) >= RELEVANCE_LEVELS:
        return ()
    return tuple(relevance_by_letter[letter] for letter in letters(count))


def layout_tokenizer(sids: Sequence[str]) -> PreTrainedTokenizerBase:
    """One token for each word of the layout and of `sids`; every other word is unknown, white space is nothing."""
    words = dict.fromkeys(["<unk>", *(word.strip() for word in template_words())])
    inner = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")  # type: ignore[no-untyped-call]
    codes = sorted({token for sid in sids for token in re.findall(r"<[^<>]+>", sid)})
    tokenizer.add_tokens([*SPECIAL_TOKENS, *codes], special_tokens=True)
    return tokenizer
