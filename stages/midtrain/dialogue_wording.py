"""The tasks as dialogues in varied phrases, for models that speak through a chat template (layouts/dialogue.py).

What the assistant says follows from how it was asked, so an answer is right or wrong whichever phrase was drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.midtrain.documents import PREFERENCE_CATEGORIES, Document
from stages.shared.slates.layouts.chat import CATEGORY_CHARACTERS
from stages.shared.slates.layouts.marks import ASSISTANT, END, SYSTEM, THINK, THINK_END, USER
from stages.shared.slates.layouts.outside_text import TITLE_CHARACTERS, quoted
from stages.shared.slates.slate import Catalog, top_categories

ROLE = "You know a catalogue of items, each by its ID, and a log of the items that users took."
# Question, what comes before the title, what comes after it.
SID_TO_CAPTION = [
    ("What is {sid}?", "It is ", ", of {categories}."),
    ("Give the title and the categories of {sid}.", "Title: ", "\nCategories: {categories}"),
    ("Which item has the ID {sid}?", "The item ", " ({categories})."),
    ("Describe {sid} as the catalogue does.", "{sid}: ", ", {categories}"),
]
CAPTION_TO_SID = [
    ("What is the ID of {title}, of {categories}?", "{sid}"),
    ("Title: {title}\nCategories: {categories}\nGive the ID.", "{sid}"),
    ("Which ID has the item {title} ({categories})?", "Its ID is {sid}."),
    ("Find {title} in the catalogue. Categories: {categories}.", "{title} is {sid}."),
]
PREFERENCE = [
    ("A user took, oldest first: {titles}. Which categories does the user take most?", "{liked}"),
    ("These items were taken, one after another: {titles}. What do they have in common?", "Mostly {liked}."),
    ("History of a user: {titles}\nCommonest categories?", "Commonest categories: {liked}"),
]
PERSONA = [
    ("The user's history is {sids}. Tell what the user took, one by one, and what the user likes.", "{told}\nThe user likes {liked}."),
    ("Who is the user with the items {sids}?", "Someone who took {told}\nand takes mostly {liked}."),
    ("Profile this history: {sids}", "Items:\n{told}\nProfile: {liked}"),
]
UNKNOWN = "no category"


@dataclass(frozen=True)
class DialogueWording:
    catalog: Catalog

    def sid_to_caption(self, item: int, rng: np.random.Generator) -> Document:
        return self._told(item, rng, around=1.0)

    def sid_to_title(self, item: int, rng: np.random.Generator) -> Document:
        return self._told(item, rng, around=0.0)

    def caption_to_sid(self, item: int, rng: np.random.Generator) -> Document:
        question, answer = CAPTION_TO_SID[int(rng.integers(len(CAPTION_TO_SID)))]
        words = self._words(item)
        before, after = answer.format(sid="\n", title=words["title"]).split("\n")
        return [_asked(question.format(**words)), *_segments((before, 1.0), (self.catalog.sids[item], 1.0), (after + END, 1.0))]

    def preference(self, taken: Sequence[int], rng: np.random.Generator) -> Document:
        question, answer = PREFERENCE[int(rng.integers(len(PREFERENCE)))]
        titles = ", ".join(self._title(item) for item in taken)
        return [_asked(question.format(titles=titles)), (answer.format(liked=self._liked(taken)) + END, 1.0)]

    def persona(self, taken: Sequence[int], rng: np.random.Generator) -> Document:
        question, answer = PERSONA[int(rng.integers(len(PERSONA)))]
        told = "\n".join("{sid} {title}, {categories}".format(**self._words(item)) for item in taken)
        sids = " ".join(self.catalog.sids[item] for item in taken)
        return [_asked(question.format(sids=sids)), (answer.format(told=told, liked=self._liked(taken)) + END, 1.0)]

    def _told(self, item: int, rng: np.random.Generator, around: float) -> Document:
        """around: the weight of what stands around the title."""
        question, before, after = SID_TO_CAPTION[int(rng.integers(len(SID_TO_CAPTION)))]
        words = self._words(item)
        answer = _segments((before.format(**words), around), (words["title"], 1.0), (after.format(**words) + END, around))
        return [_asked(question.format(**words)), *answer]

    def _words(self, item: int) -> dict[str, str]:
        categories = ", ".join(quoted(name, CATEGORY_CHARACTERS) for name in self.catalog.categories[item]) or UNKNOWN
        return {"sid": self.catalog.sids[item], "title": self._title(item), "categories": categories}

    def _title(self, item: int) -> str:
        return quoted(self.catalog.titles[item], TITLE_CHARACTERS)

    def _liked(self, taken: Sequence[int]) -> str:
        names = top_categories(taken, self.catalog, PREFERENCE_CATEGORIES)
        return ", ".join(quoted(name, CATEGORY_CHARACTERS) for name in names) or UNKNOWN


def _asked(question: str) -> tuple[str, float]:
    """The closed think block asks for an answer without thoughts."""
    return f"{SYSTEM}{ROLE}{USER}{question}{ASSISTANT}{THINK}{THINK_END}", 0.0


def _segments(*segments: tuple[str, float]) -> Document:
    return [segment for segment in segments if segment[0]]
