"""The relevances of a layout as words on a scale."""

from transformers import PreTrainedTokenizerBase

from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.training.ordinal import OrdinalWords


def relevance_words(layout: Layout, tokenizer: PreTrainedTokenizerBase, spread: float) -> OrdinalWords | None:
    """None without a spread, and where the tokenizer splits the words, so that no single token is a relevance."""
    ids = EncodedLayout(layout, tokenizer).token_ids.relevances
    return OrdinalWords(ids, spread) if ids and spread > 0 else None
