import pytest

from stages.shared.slates.layouts.marks import THINK_END
from stages.traces.teachers.answer_faults import prose_fault
from stages.traces.teachers.asking import Question
from stages.traces.teachers.language_model import INSTRUCTION
from stages.traces.teachers.teacher import StatisticalTeacher
from tests.support.traces_data import CATALOG, LAYOUT, scored_slates

ONE = scored_slates()[0]
QUESTION = Question(0, INSTRUCTION.format(names="the letters"), LAYOUT.prompt(ONE.slate))
PROPOSAL = StatisticalTeacher(LAYOUT, 0.5, 7, targeted=False).propose([ONE], 0)[0]
GOOD = f"{PROPOSAL.trace}{THINK_END}{LAYOUT.answer(ONE.slate, PROPOSAL.order)}"
GERMAN = "Der Nutzer mag die Filme, und das ist nicht neu: mit dem Drama kommt auch ein Krimi von der Liste, weil die Reihe sich fortsetzt."
ENGLISH = "The user likes these films, and this is not new: with the drama comes a thriller of the list, because it goes on in that way."


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GOOD, ""),
        ("", ""),
        (ENGLISH + GOOD, ""),
        (QUESTION.preface + QUESTION.prompt + GOOD, "repeats_prompt"),
        (GOOD + QUESTION.prompt[-300:], "repeats_prompt"),
        (GERMAN + GOOD, "language"),
        ("用户喜欢这些电影,所以选择这一部,因为它们属于同一类别,并且经常一起出现。" + GOOD[:60], "language"),
        ("Пользователь смотрел эти фильмы раньше" + GOOD[:60], "language"),
        (GOOD.replace("Drama", "Drama Amélie"), ""),
        ("A B E O e o a E O e o a O E e o a y O y", ""),  # letters of candidates are no words
    ],
)
def test_what_is_wrong_with_the_prose(text: str, fault: str) -> None:
    assert prose_fault(text, QUESTION) == fault


def test_titles_in_another_script_may_be_quoted() -> None:
    prompt = QUESTION.prompt + " Название фильма"
    assert prose_fault("Название " * 9 + GOOD, Question(0, QUESTION.preface, prompt)) == "" and CATALOG
