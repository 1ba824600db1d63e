"""Which layout a run speaks: the one place that reads `prompt.layout`."""

from dataclasses import replace

from stages.shared.core.params import load_params
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.compact import CompactLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog


def layout_of(catalog: Catalog, options: PromptParams | None = None) -> Layout:
    """The layout of `catalog`; options: the section `prompt`, by default as params.yaml has it."""
    chosen = options or load_params("prompt", PromptParams)
    return ChatLayout(catalog, chosen) if chosen.layout == "chat" else CompactLayout(catalog, chosen)


def without_reasoning(layout: Layout) -> Layout:
    """`layout` as if prompt.reasoning were false: for a model that answers at once beside others that reason."""
    assert isinstance(layout, ChatLayout | CompactLayout)
    return replace(layout, options=layout.options.model_copy(update={"reasoning": False}))
