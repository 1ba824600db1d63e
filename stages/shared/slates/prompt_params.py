"""Section `prompt` of params.yaml: what a slate looks like to the language model. Shared by midtrain, traces, sft, rl
and evaluate; `retrieve` reads which features to count."""

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from stages.shared.core.params import Section

MoreFeature = Literal["fo", "br"]
Feature = Literal["co", "tr", "ca", "po", "re", "sc", "fo", "br"]  # candidate_features.py; a test compares


class PromptParams(Section):
    layout: Literal["compact", "chat"] = Field(
        "compact", description="how a slate is written: compact for a small decoder, chat for instruction-tuned models (docs/prompts.md)"
    )
    answer: Literal["letters", "sids"] = Field(
        "letters", description="what an answer names candidates by: their letter, one token each, or their semantic ID, as GR2 does"
    )
    reasoning: bool = Field(True, description="whether the model writes a trace before its answer; false: an empty think block")
    history: int = Field(5, ge=1, description="items of history in the prompt, most recent last")
    top_categories: int = Field(2, ge=0, description="commonest categories of the history that are named")
    more_features: list[MoreFeature] = Field(
        [], description="features of a candidate beside the six: fo, what kind follows which; br, brands of the last items (docs/stages.md)"
    )
    less_features: list[Feature] = Field(
        [], description="of the six, those that prompts leave out: re, which is the same for every candidate where the data have no times"
    )
    window: int = Field(0, description="candidates in a prompt at most; longer slates are read in windows (windows.py). 0 = all")
    titles: bool = Field(False, description="title and categories after every SID (large models; a small one has no room for them)")
    # Of the layout chat alone.
    evidence: bool = Field(True, description="chat: the features of each candidate in a few words")
    cited: list[Feature] = Field(
        [], description="chat: evidence that a trace quotes of each candidate before its relevance; [] = all. Fewer make a shorter trace"
    )
    candidates_first: bool = Field(False, description="chat: candidates before the history, so that users of one slate share a prefix")
    domain: list[str] = Field([], description="chat: what is known of the domain, a line each: shampoo -> conditioner -> styling")
    domain_rules: int = Field(
        0, ge=0, description="chat: lines that retrieve mined from base and from the catalogue, so many of each sort at most"
    )
    max_tokens: int = Field(0, ge=0, description="chat: tokens of a prompt at most; titles are cut first, then history. 0 = no limit")
    think_tokens: int = Field(
        0,
        ge=0,
        description="chat: tokens of thought at most, then it is closed. 0 = a quarter more than a trace takes, under the constraint",
    )
    explanation_tokens: int = Field(64, ge=1, description="chat: tokens of the explanation in an answer under the constraint, at most")

    @model_validator(mode="after")
    def features_are_named_once(self) -> Self:
        for name, features in (("more_features", self.more_features), ("less_features", self.less_features)):
            if len(set(features)) < len(features):
                raise ValueError(f"{name} names a feature twice: {', '.join(features)}")
        if added := [feature for feature in self.less_features if feature in get_args(MoreFeature)]:
            raise ValueError(f"less_features: {added[0]} is none of the six; take it out of more_features")
        if {*self.less_features} == {*get_args(Feature)} - {*get_args(MoreFeature)}:
            raise ValueError("less_features leaves out all six, by which candidates are told apart; leave one in")
        return self

    @model_validator(mode="after")
    def cited_evidence_is_shown(self) -> Self:
        if not self.cited:
            return self
        if not self.evidence:
            raise ValueError("cited names evidence, and evidence: false shows none; leave cited empty")
        if len(set(self.cited)) < len(self.cited):
            raise ValueError(f"cited names a feature twice: {', '.join(self.cited)}")
        if unseen := [feature for feature in self.cited if feature in get_args(MoreFeature) and feature not in self.more_features]:
            raise ValueError(f"cited: {unseen[0]} is in no prompt; name it in more_features, too")
        if unseen := [feature for feature in self.cited if feature in self.less_features]:
            raise ValueError(f"cited: {unseen[0]} is in no prompt; take it out of less_features")
        return self

    @model_validator(mode="after")
    def windows_hold_two(self) -> Self:
        if self.window < 0 or self.window == 1:
            raise ValueError(f"window is {self.window}; give 2 or more candidates to be compared, or 0 for whole slates")
        return self
