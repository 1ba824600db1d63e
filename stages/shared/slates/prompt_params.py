"""Section `prompt` of params.yaml: what a slate looks like to the language model. Shared by midtrain, traces, sft, rl
and evaluate; `retrieve` reads which features to count."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.shared.core.params import Section


class PromptParams(Section):
    layout: Literal["compact"] = Field("compact", description="how a slate is written (docs/training.md)")
    answer: Literal["letters", "sids"] = Field(
        "letters", description="what an answer names candidates by: their letter, one token each, or their semantic ID, as GR2 does"
    )
    reasoning: bool = Field(True, description="whether the model writes a trace before its answer; false: an empty think block")
    history: int = Field(5, ge=1, description="items of history in the prompt, most recent last")
    top_categories: int = Field(2, ge=0, description="commonest categories of the history that are named")
    more_features: list[Literal["fo", "br"]] = Field(
        [], description="features of a candidate beside the six: fo, what kind follows which; br, brands of the last items (docs/stages.md)"
    )
    titles: bool = Field(False, description="title and categories after every SID (large models; a small one has no room for them)")

    @model_validator(mode="after")
    def features_are_named_once(self) -> Self:
        if len(set(self.more_features)) < len(self.more_features):
            raise ValueError(f"more_features names a feature twice: {', '.join(self.more_features)}")
        return self
