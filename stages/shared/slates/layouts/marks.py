"""The marks and words that every layout is made of."""

from string import ascii_uppercase

from stages.shared.core.errors import StageError

USER, ASSISTANT, THINK, THINK_END, END, PAD = "<|user|>", "<|assistant|>", "<think>", "</think>", "<|end|>", "<|pad|>"
# Opens a dialogue (layouts/dialogue.py). Never a token: the chat template of the model stands in its place.
SYSTEM = "<|system|>"
SPECIAL_TOKENS = [PAD, END, USER, ASSISTANT, THINK, THINK_END]
LETTERS = [f" {letter}" for letter in ascii_uppercase]


def letters(count: int) -> list[str]:
    """The words that name `count` candidates, in the order in which they are shown."""
    if count > len(LETTERS):
        raise StageError(f"a slate of {count} candidates: the prompt has letters for {len(LETTERS)} at most; lower retrieve.candidates")
    return LETTERS[:count]
