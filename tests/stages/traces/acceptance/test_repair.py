"""A scripted engine that goes on from what it is shown."""

import re

import pytest
from pydantic import ValidationError

from stages.shared.generation.base import Sampling
from stages.shared.generation.invocations import Invocations
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.chat_trace import SCALE, STEP_ORDER
from stages.shared.slates.layouts.marks import END, THINK_END
from stages.shared.slates.prompt_params import PromptParams
from stages.traces.acceptance.checks import TraceChecks
from stages.traces.acceptance.rejection import order_shown, sample
from stages.traces.acceptance.repair import CONTINUED, Repairs, steps_of
from stages.traces.params import TracesParams
from stages.traces.teachers.asking import TokenAsker
from stages.traces.teachers.chat_teacher import ChatTeacher
from stages.traces.teachers.language_model import LanguageModelTeacher
from stages.traces.teachers.teacher import StatisticalTeacher
from tests.stages.traces.teachers.test_language_model import FakeEngine, foreign_tokenizer
from tests.support.chat_models import chat_tokenizer
from tests.support.traces_data import CATALOG, LAYOUT, scored_slates

CHAT = ChatLayout(CATALOG, PromptParams(layout="chat", titles=True))
LAYOUTS = {"compact": LAYOUT, "chat": CHAT}
ONE = next(one for one in scored_slates(layout=CHAT) if order_shown(one, 0, 7).index(one.slate.target_rank) == 1)  # shown second
SHOWN = ONE.shown_as(order_shown(ONE, 0, 7))


def run(layout, texts, attempts=4, targeted=False):
    tokenizer = foreign_tokenizer() if layout is LAYOUT else chat_tokenizer(thinking=True)
    engine = FakeEngine(tokenizer, texts)
    asker, sampling = TokenAsker(engine, tokenizer, Invocations(False), "fake"), Sampling(8, 1.0, seed=7)
    kind = LanguageModelTeacher if layout is LAYOUT else ChatTeacher
    teacher, checks = kind(asker, sampling, layout, CATALOG, targeted), TraceChecks(layout, targeted)
    log = sample(teacher, checks, [ONE], attempts, 1, None, 7, repairs=Repairs(teacher, checks))
    return log, engine


def right_trace(layout, shown=SHOWN):
    [proposal] = StatisticalTeacher(layout, 0.5, 7, targeted=True).propose([shown], 0)
    return proposal


def answered(layout, order, shown=SHOWN):
    answer = layout.answer(shown.slate, order).removesuffix(END)
    return f"{THINK_END}{answer}" if layout is LAYOUT else f"\n\n{answer}"


def judged(layout, trace, letter, level):
    """The trace with another relevance of one candidate, and the order that follows from it."""
    if layout is LAYOUT:
        return re.sub(rf" {letter} s\d+", f" {letter} s{level}", trace)
    steps = re.sub(rf"(andidate {letter}\b[^\n]*relevance) \w+", rf"\1 {SCALE[level]}", trace).partition(STEP_ORDER)[0]
    levels = layout.claims(steps).relevances
    return steps + layout.conclusion([levels[name] for name in "ABCDE"])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_steps_joined_are_the_trace(layout):
    trace = right_trace(layout).trace
    steps = steps_of(trace, layout.dialogue)
    assert "".join(steps) == trace and len(steps) == (6 if layout is LAYOUT else 9)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_judgement_above_the_targets_is_where_it_goes_on(layout):
    """B is the target; D, judged above it, is the first step that contradicts it."""
    fixed = right_trace(layout).trace
    for letter, level in {"A": 4, "B": 7, "C": 4}.items():
        fixed = judged(layout, fixed, letter, level)
    wrong = judged(layout, judged(layout, fixed, "D", 8), "E", 1)
    place = len(steps_of(fixed, layout.dialogue)) - (2 if layout is LAYOUT else 3)
    prefix = "".join(steps_of(fixed, layout.dialogue)[:place])
    first = (3, 1, 0, 2, 4)
    rest = judged(layout, judged(layout, fixed, "D", 3), "E", 2)[len(prefix) :]
    log, engine = run(layout, [wrong + answered(layout, first), rest + answered(layout, (1, 0, 2, 3, 4))])
    assert engine.prompts[1] == engine.prompts[0] + prefix and not engine.prompts[0].endswith(prefix)
    [kept] = log.kept
    assert kept.proposal.trace == prefix + rest and kept.continued and kept.attempt == 2
    assert kept.proposal.order == (1, 0, 2, 3, 4) and kept.shown == order_shown(ONE, 0, 7), "the order shown is that of the first try"
    assert log.slates[0].continued == 1 and dict(log.faults) == {}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_an_invented_piece_of_evidence_is_where_it_goes_on(layout):
    right = right_trace(layout)
    level = SHOWN.slate.bins[2][0]
    missing = next(number for number in range(10) if number not in [row[0] for row in SHOWN.slate.bins])
    steps = steps_of(right.trace, layout.dialogue)
    place = next(i for i, step in enumerate(steps) if re.search(r"andidate C\b.*co-occ| C s\d+", step))
    old, new = ("co{}" if layout is LAYOUT else "co-occurrence {}").format(level), ("co{}" if layout is LAYOUT else "co-occurrence {}")
    wrong = [*steps[:place], steps[place].replace(old, new.format(missing)), *steps[place + 1 :]]
    assert wrong != steps
    answer = answered(layout, right.order)
    log, engine = run(layout, ["".join(wrong) + answer, "".join(steps[place:]) + answer])
    prefix = "".join(steps[:place])
    assert engine.prompts[1] == engine.prompts[0] + prefix
    assert [kept.proposal.trace for kept in log.kept] == [right.trace] and dict(log.faults) == {"unfounded": 1}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_where_only_the_answer_is_wrong_the_whole_trace_is_kept(layout):
    right = right_trace(layout)
    log, engine = run(layout, [right.trace + answered(layout, right.order)[:-3], answered(layout, right.order)])
    assert engine.prompts[1] == engine.prompts[0] + right.trace and [kept.proposal.trace for kept in log.kept] == [right.trace]
    assert log.faults.total() == 1


def test_what_came_to_nothing_twice_is_begun_anew():
    right = right_trace(LAYOUT)
    bad = answered(LAYOUT, right.order)[:-2]
    second = ONE.shown_as(order_shown(ONE, CONTINUED + 1, 7))
    fresh = right_trace(LAYOUT, second)
    texts = [right.trace + bad, *[bad] * CONTINUED, fresh.trace + answered(LAYOUT, fresh.order, second)]
    log, engine = run(LAYOUT, texts)
    assert [prompt.endswith(right.trace) for prompt in engine.prompts] == [False, True, True, False]
    [kept] = log.kept
    assert kept.attempt == CONTINUED + 2 and not kept.continued and kept.shown == order_shown(ONE, CONTINUED + 1, 7)


@pytest.mark.parametrize("text", ["I cannot say.", "", f" A co99 A s3{THINK_END} A"])
def test_where_nothing_can_be_kept_the_next_try_begins_anew(text):
    right = right_trace(LAYOUT, ONE.shown_as(order_shown(ONE, 1, 7)))
    log, engine = run(LAYOUT, [text, right.trace + answered(LAYOUT, right.order, ONE.shown_as(order_shown(ONE, 1, 7)))])
    assert engine.prompts[1] != engine.prompts[0] and len(log.kept) == 1 and not log.kept[0].continued


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "mode repair has a language model go on from a step of its trace, and teacher is statistical"),
        (
            {"teacher": "language_model", "language_model": {"engine": {"kind": "endpoint", "endpoint": {"api": "chat"}}}},
            "which a chat endpoint cannot; set language_model.engine.endpoint.api to completions",
        ),
    ],
)
def test_teachers_that_cannot_go_on_are_refused(section, message):
    with pytest.raises(ValidationError, match=message):
        TracesParams.model_validate({**section, "mode": "repair"})


def test_an_endpoint_of_token_ids_may():
    engine = {"kind": "endpoint", "endpoint": {"api": "completions"}}
    params = TracesParams.model_validate({"mode": "repair", "teacher": "language_model", "language_model": {"engine": engine}})
    assert params.mode == "repair"
