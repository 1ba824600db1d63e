"""Ordinary text: replayed so that a pretrained model keeps its language, and kept back to measure whether it did (`midtrain.text`)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.midtrain.documents import Document
from stages.shared.core.errors import StageError

KEPT_BACK = 10  # each tenth paragraph
# What opens a token of ours, or of most chat templates: text from outside is data, and must not spell one.
_MARK = re.compile(r"<(?=\||/?think>|s_[a-z]_\d)")


@dataclass(frozen=True)
class OrdinaryText:
    """Paragraphs to train on, and those kept back; none is in both."""

    replayed: list[str]
    kept_back: list[str]


def read_text(path: Path) -> OrdinaryText:
    """path: UTF-8, one paragraph a line; repeated ones count once."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; name a text of one paragraph a line in midtrain.text (infra/text/README.md)") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise StageError(f"{path}: not a UTF-8 text ({error}); midtrain.text names a file of one paragraph a line") from None
    paragraphs = list(dict.fromkeys(_MARK.sub("< ", line.strip()) for line in lines if line.strip()))
    if len(paragraphs) < 2 * KEPT_BACK:
        raise StageError(f"{path}: {len(paragraphs)} different paragraphs, of which each tenth is kept back; give {2 * KEPT_BACK} or more")
    kept_back = paragraphs[KEPT_BACK - 1 :: KEPT_BACK]
    return OrdinaryText([line for number, line in enumerate(paragraphs, start=1) if number % KEPT_BACK], kept_back)


def replay_documents(paragraphs: Sequence[str], rng: np.random.Generator) -> Iterator[Document]:
    """Endless: random paragraphs as they are, without a mark of any layout; every token counts."""
    while True:
        yield [(paragraphs[int(rng.integers(len(paragraphs)))], 1.0)]
