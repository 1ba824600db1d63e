"""A language model as the teacher: any engine, any tokenizer, the same loop as the statistical one."""

import re
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stages.shared.generation.base import Reply, Sampling
from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.layouts.marks import END, SPECIAL_TOKENS, THINK, THINK_END, letters
from stages.shared.slates.sids import SID_BEGIN, SID_END
from stages.shared.slates.slate import RELEVANCE_LEVELS, Catalog
from stages.traces.out_of_time import ScoredSlate
from stages.traces.teachers.answer_faults import prose_fault
from stages.traces.teachers.asked_teacher import AskedTeacher
from stages.traces.teachers.asking import Asker, Question
from stages.traces.teachers.teacher import Proposal

TOP = RELEVANCE_LEVELS - 1
# What the letters of a feature stand for, and its levels in the example.
_FACTS = {
    "co": ("co-occurrence with the last items", 7, 1),
    "tr": ("transitions from them", 3, 0),
    "ca": ("shared categories", 5, 2),
    "po": ("popularity", 6, 4),
    "re": ("recency", 2, 6),
    "sc": ("score of the retriever", 9, 5),
    "fo": ("how its kind follows the last ones", 4, 2),
    "br": ("brand shared with the last items", 1, 0),
}


def instruction(features: Sequence[str]) -> str:
    """Of a layout that shows these features; {names} is left open. A neutral analyst's voice, two steps, candidates by letter, what is
    said of each right after what it follows from."""
    facts = ", ".join(f"{feature} {_FACTS[feature][0]}" for feature in features)
    first, second = (" ".join(f"{feature}{_FACTS[feature][place]}" for feature in features) for place in (1, 2))
    return f"""You analyse a recommendation log. You are given the items a user took, oldest first, the commonest categories among them,
and candidates. Every item is written as a semantic ID, from {SID_BEGIN} to {SID_END}. Before each candidate
stand its letter and its facts, each a level from 0 to 9: {facts}.
Order the candidates by how likely the user takes them next.
Reason first, in two steps and in this layout, citing only letters and facts that are given:
 1 pattern: the categories that matter 2 match: every candidate in the given order, each as its letter, its {len(features)} facts, its
 letter again and a strength from s0 (least) to s{TOP} (most), as in A {first} A s12 B {second} B s3
Then close the reasoning with {THINK_END}, write {{names}} of all candidates, best first, and end with {END}.
"""


INSTRUCTION = instruction(tuple(FEATURES))
SHOWN = "The user took {sid} next: explain why the evidence speaks for it, and put it first.\n"

_RELEVANCE = re.compile(r"\b([A-Z])\s+s(\d+)\b")


class LanguageModelTeacher(AskedTeacher):
    """Reads answers from the teacher's text, marks kept, through a tokenizer of the layout alone: the teacher's own vocabulary need not
    hold a token for each SID, as the student's does."""

    def __init__(self, asker: Asker, sampling: Sampling, layout: Layout, catalog: Catalog, targeted: bool):
        super().__init__(asker, sampling, catalog, targeted)
        self.layout = layout
        self.encoded = EncodedLayout(layout, layout_tokenizer(layout.words(), catalog.sids))

    def question(self, scored: ScoredSlate) -> Question:
        """The instruction, then the slate as the student will see it."""
        preface = instruction(self.layout.features).format(names="the letters" if self.layout.answers_by_letter else "the IDs")
        if self.targeted:
            preface += SHOWN.format(sid=self.target_sid(scored))
        return Question(scored.slate.slate, preface, self.layout.prompt(scored.slate))

    def read(self, reply: Reply, question: Question, scored: ScoredSlate) -> Proposal:
        # Where the teacher has ended, that takes the place of our end token.
        text = reply.text.strip().removeprefix(THINK) + (END if reply.finish == "stop" else "")
        trace, closed, _ = text.partition(THINK_END)
        trace = " " + trace.strip()  # as the layout begins
        [names] = self.encoded.names([scored.slate])
        answer = self.encoded.reader.read(self.encoded.tokenizer.encode(text, add_special_tokens=False), names)
        fault = prose_fault(text, question) or answer.fault
        if not closed or fault or answer.order is None:
            return Proposal(trace, None, fault or "malformed")
        return Proposal(trace, answer.order, relevances=written_relevances(trace, len(names)))


def written_relevances(trace: str, count: int) -> tuple[int, ...]:
    """The relevance word after the letter of each of `count` candidates, by incoming rank; empty unless each has exactly one."""
    pairs = _RELEVANCE.findall(trace)
    relevance_by_letter = {f" {letter}": int(relevance) for letter, relevance in pairs}
    if len(pairs) != count or set(relevance_by_letter) != set(letters(count)) or max(relevance_by_letter.values()) >= RELEVANCE_LEVELS:
        return ()
    return tuple(relevance_by_letter[letter] for letter in letters(count))


def layout_tokenizer(layout_words: Sequence[str], sids: Sequence[str]) -> PreTrainedTokenizerBase:
    """One token for each word of the layout and of `sids`; every other word is unknown, white space is nothing."""
    words = dict.fromkeys(["<unk>", *(word.strip() for word in layout_words)])
    inner = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")  # type: ignore[no-untyped-call]
    codes = sorted({token for sid in sids for token in re.findall(r"<[^<>]+>", sid)})
    tokenizer.add_tokens([*SPECIAL_TOKENS, *codes], special_tokens=True)
    return tokenizer
