from dataclasses import replace

import pytest

from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.chat_trace import STEP_ORDER
from stages.shared.slates.prompt_params import PromptParams
from stages.traces.acceptance.checks import TraceBudget, TraceChecks
from stages.traces.params import NO_MODEL
from stages.traces.teachers.random_order import RandomTeacher
from stages.traces.teachers.teacher import StatisticalTeacher
from tests.support.chat_models import chat_tokenizer
from tests.support.traces_data import CATALOG, LAYOUT, many_slates, scored_slates

CHAT = ChatLayout(CATALOG, PromptParams(layout="chat", titles=True))
SCORED = scored_slates(layout=CHAT)[:40]
ONE = next(one for one in SCORED if "Action" in str(CHAT.prompt(one.slate)))
SHOWN = StatisticalTeacher(CHAT, 0.5, 7, targeted=True)
[WRITTEN] = SHOWN.propose([ONE], 0)
THREE_STEPS = WRITTEN.trace.partition(STEP_ORDER)[0]
FIRST = "ABCDE"[WRITTEN.order[0]]
OTHER = "ABCDE"[WRITTEN.order[1]]
FIRST_SID, OTHER_SID = (CATALOG.sids[ONE.slate.candidates[rank]] for rank in WRITTEN.order[:2])


def fault(more="", explanation="", layout=CHAT, targeted=True, budget=None):
    """Of THREE_STEPS with a sentence more in the third."""
    [proposal] = StatisticalTeacher(layout, 0.5, 7, targeted=True).propose([ONE], 0)
    changed = replace(proposal, trace=THREE_STEPS + more, explanation=explanation)
    return TraceChecks(layout, targeted, budget).fault(changed, ONE)


@pytest.mark.parametrize("layout", [LAYOUT, CHAT, replace(CHAT, options=CHAT.options.model_copy(update={"evidence": False}))])
@pytest.mark.parametrize("targeted", [False, True])
def test_what_the_layouts_own_teachers_write_holds_every_check(layout, targeted):
    checks = TraceChecks(layout, targeted)
    proposals = StatisticalTeacher(layout, 0.5, 7, targeted).propose(SCORED, 0)
    assert [checks.fault(proposal, one) for proposal, one in zip(proposals, SCORED, strict=True)] == [""] * len(SCORED)
    for one in many_slates(10):
        [proposal] = RandomTeacher(layout, 1).propose([one], 0)
        explained = replace(proposal, explanation=layout.answer(one.slate, proposal.order))
        assert checks.fault(explained, one) == ""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (f"\nCandidate {FIRST} is the best choice.", ""),
        (f"\nCandidate {OTHER} is the best choice.", "first_choice"),
        (f"\nCandidate {FIRST} is weaker than candidate {OTHER}, which comes first.", "first_choice"),
        (f"\nCandidate {OTHER} is weaker than candidate {FIRST}, which comes first.", ""),
        (f"\nThe top pick is {OTHER_SID}.", "first_choice"),
        (f"\nThe top pick is {FIRST_SID}.", ""),
        (f"\nCandidate {OTHER}: relevance top.\nCandidate {FIRST}: relevance high.", "first_choice"),
        (f"\nCandidate {OTHER}: relevance high.", ""),
    ],
)
def test_the_first_choice_is_the_answers(more, expected):
    assert fault(more) == expected


@pytest.mark.parametrize(
    ("explanation", "expected"),
    [
        (f"Candidate {FIRST} fits the history best.", ""),
        (f"Although candidate {OTHER} is popular, candidate {FIRST} follows the last item.", ""),
        (f"Candidate {OTHER} is popular.", "first_choice"),
        (f"The strongest evidence is that of candidate {OTHER}, before candidate {FIRST}.", "first_choice"),
        ("It continues the history, and any candidate a user likes is good.", ""),
        (f"The title {OTHER_SID} is close to the last item.", "first_choice"),
    ],
)
def test_the_explanation_names_the_answers_first(explanation, expected):
    assert fault(explanation=explanation) == expected


@pytest.mark.parametrize(
    "more",
    [
        f"\nCandidate {FIRST} is the correct answer.",
        f"\nThe user chose candidate {FIRST}, so it leads.",
        f"\nThe user then took {FIRST_SID}.",
        f"\nAs given, candidate {FIRST} leads.",
        f"\nWe know that candidate {FIRST} is next.",
        "\nThis agrees with the ground truth.",
    ],
)
def test_who_was_shown_the_target_may_not_say_so(more):
    assert fault(more) == "target_given" and fault(more, targeted=False) == ""


@pytest.mark.parametrize(
    "more",
    [
        f"\nThe user will take candidate {FIRST} next.",
        "\nThe user often watched items of one kind.",
        "\nIt keeps the order as given order.",
    ],
)
def test_what_anyone_may_say(more):
    assert fault(more) == ""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("\nThe 5 items of the history are alike.", ""),
        ("\nAll 5 candidates are known.", ""),
        ("\nThe user took 37 items like these.", "unfounded"),
        ("\nIt is liked by 95 % of users.", "unfounded"),
        ("\nThe title “Title 99” comes to mind.", "unfounded"),
        (f"\nThe title “{CATALOG.titles[ONE.slate.candidates[0]]}” comes to mind.", ""),
        ('\nFour of the five items are in "Tragedy".', "unfounded"),
        ("\nStep 4: nothing else.", ""),
    ],
)
def test_numbers_and_titles_stand_in_the_prompt(more, expected):
    assert fault(more) == expected


def test_counts_in_words_are_counted():
    named = [CATALOG.categories[item] for item in ONE.slate.history[-3:]]
    right = sum("Action" in names for names in named)
    words = ["none", "one", "two", "three"]
    assert right > 0
    assert fault(f'\nSo {words[right]} of the latest three items belong to "Action".') == ""
    assert fault(f'\nSo {words[right % 3 + 1]} of the latest three items belong to "Action".') == "unfounded"


def test_levels_are_found_in_other_words():
    level = ONE.slate.bins[0][0]
    assert fault(f"\nCandidate A has a co-occurrence of {level}.") == ""
    missing = next(number for number in range(10) if number not in [row[0] for row in ONE.slate.bins])
    assert fault(f"\nCandidate A has a co-occurrence level of {missing}.") == "unfounded"


@pytest.mark.parametrize(("old", "new", "expected"), [("Drama", "Drama", ""), ("Drama", "Horror", ""), ("Drama", "Action", "unfounded")])
def test_compact_a_pattern_names_categories_of_the_history(old, new, expected):
    """Horror is a word like any other where no item of the catalogue has it."""
    one = next(one for one in SCORED if LAYOUT.opening(one.slate).startswith(" 1 pattern: Comedy Drama"))
    [proposal] = StatisticalTeacher(LAYOUT, 0.5, 7, targeted=True).propose([one], 0)
    changed = replace(proposal, trace=proposal.trace.replace(old, new))
    assert TraceChecks(LAYOUT).fault(changed, one) == expected


def test_a_trace_longer_than_its_budget_is_refused():
    words = len(THREE_STEPS.split())
    assert fault(budget=TraceBudget.of_student(words, NO_MODEL)) == ""
    assert fault(budget=TraceBudget.of_student(words - 1, NO_MODEL)) == "too_long"
    assert TraceBudget.of_student(0, NO_MODEL) is None


def test_the_students_own_tokens_are_counted(tmp_path):
    tokenizer = chat_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    tokens = len(tokenizer(THREE_STEPS, add_special_tokens=False)["input_ids"])
    assert tokens > len(THREE_STEPS.split())
    assert fault(budget=TraceBudget.of_student(tokens, str(tmp_path))) == ""
    assert fault(budget=TraceBudget.of_student(tokens - 1, str(tmp_path))) == "too_long"
