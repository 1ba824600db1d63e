"""What every layout has in common: the catalogue, the section `prompt`, and what follows from them whatever the words."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from stages.shared.slates.candidate_features import features_with
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog, Slate


@dataclass(frozen=True)
class LayoutParts:
    """The members of Layout (layout.py) that do not depend on how a layout words things."""

    catalog: Catalog
    options: PromptParams

    @property
    def reasoning(self) -> bool:
        return self.options.reasoning

    @cached_property
    def features(self) -> tuple[str, ...]:
        return features_with(self.options.more_features, self.options.less_features)

    @cached_property
    def quoted(self) -> tuple[str, ...]:
        return tuple(feature for feature in self.features if not self.options.cited or feature in self.options.cited)

    @property
    def answers_by_letter(self) -> bool:
        return self.options.answer == "letters"

    def shown_history(self, slate: Slate) -> Sequence[int]:
        """The last items of the history, as many as the prompt shows."""
        return slate.history[-self.options.history :]

    def shown_sids(self, slate: Slate) -> list[str]:
        return [self.catalog.sids[item] for item in [*self.shown_history(slate), *slate.candidates]]

    def uncounted(self, numbers: Sequence[int], slate: Slate, prompt: str) -> list[str]:
        """Of the numbers that a trace names in passing, those that neither count anything in the prompt nor are in it.

        Counted are the items of the history, the candidates, and the items of the history by category.
        """
        history = self.shown_history(slate)
        by_category = Counter(category for item in history for category in self.catalog.categories[item])
        known = {len(history), len(slate.candidates), *by_category.values(), *map(int, re.findall(r"(?<!\w)\d+(?!\w)", prompt))}
        return [str(number) for number in numbers if number not in known]
