from dataclasses import replace

import pytest

from stages.shared.generation.base import Sampling
from stages.shared.generation.invocations import Invocations
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.marks import END
from stages.shared.slates.prompt_params import PromptParams
from stages.traces.acceptance.checks import TraceChecks
from stages.traces.acceptance.rejection import sample
from stages.traces.teachers.asking import TokenAsker
from stages.traces.teachers.chat_teacher import SHOWN, WRITTEN, ChatTeacher
from stages.traces.teachers.teacher import StatisticalTeacher
from tests.stages.traces.teachers.test_language_model import FakeEngine
from tests.support.chat_models import chat_tokenizer
from tests.support.traces_data import CATALOG, scored_slates

LAYOUT = ChatLayout(CATALOG, PromptParams(layout="chat", titles=True, reasoning=False))
SCORED = scored_slates(layout=LAYOUT)[:12]


def teacher(texts, targeted=False, ended=True):
    tokenizer = chat_tokenizer(thinking=True)
    engine = FakeEngine(tokenizer, texts, ended)
    return ChatTeacher(
        TokenAsker(engine, tokenizer, Invocations(False), "fake"), Sampling(8, 1.0, seed=7), LAYOUT, CATALOG, targeted
    ), engine


def written(one):
    """What a teacher that follows the layout says: the statistical teacher's words."""
    proposal = StatisticalTeacher(LAYOUT, 0.5, 7, targeted=False).propose([one], 0)[0]
    return proposal, f"{proposal.trace}\n\n{LAYOUT.answer(one.slate, proposal.order).removesuffix(END)}"


def test_goes_through_the_same_loop_as_the_statistical_teacher():
    by_statistics = sample(StatisticalTeacher(LAYOUT, 0.5, 7, targeted=False), TraceChecks(LAYOUT), SCORED, 1, 1, 3)
    by_model = sample(teacher([written(one)[1] for one in SCORED])[0], TraceChecks(LAYOUT), SCORED, 1, 1, 3)
    assert by_model.kept and [k.proposal for k in by_model.kept] == [k.proposal for k in by_statistics.kept]
    assert dict(by_model.faults) == {}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text, ""),
        (lambda text: "<think>\nsecret Candidate A\n</think>\n\n" + text, ""),
        (lambda text: text.replace('{"explanation"', "So: {'explanation'"), "malformed"),
        (lambda text: text[text.index("{") :], "malformed"),
        (lambda text: text + " Is this good?", "malformed"),
        (lambda text: text.replace('"A"', '"Z"'), "outside"),
    ],
)
def test_what_is_read_of_a_completion(change, fault):
    proposal, text = written(SCORED[0])
    one, engine = teacher([change(text)])
    [read] = one.propose(SCORED[:1], 2)
    assert read.fault == fault and (read == proposal if not fault else read.order is None)
    assert "secret" not in read.trace and engine.seeds == [9]


def test_a_completion_cut_at_max_tokens_is_unfinished():
    [read] = teacher([written(SCORED[0])[1]], ended=False)[0].propose(SCORED[:1], 0)
    assert read.fault == "unfinished"


def test_the_dialogue_is_the_students_with_thinking_off_and_the_answer_only_where_it_may_be_seen():
    target = CATALOG.sids[SCORED[0].slate.candidates[SCORED[0].slate.target_rank]]
    for targeted in (False, True):
        one, engine = teacher([written(SCORED[0])[1]], targeted)
        one.propose(SCORED[:1], 0)
        [prompt] = engine.prompts
        assert WRITTEN in prompt and "Think in four steps" in prompt and prompt.endswith("<think>\n\n</think>\n\n")
        assert (SHOWN.format(sid=target) in prompt) == targeted


def test_of_several_taken_the_teacher_is_shown_one_of_the_highest_grade():
    graded = replace(SCORED[0], slate=replace(SCORED[0].slate, target_rank=0, grades=(1, 0, 3, *[0] * (len(SCORED[0].scores) - 3))))
    one, engine = teacher([written(SCORED[0])[1]], targeted=True)
    one.propose([graded], 0)
    assert SHOWN.format(sid=CATALOG.sids[graded.slate.candidates[2]]) in engine.prompts[0]
