"""The ways in which a model can be asked, and the options that choose one: the same for `gr2 rerank` and `gr2 serve`."""

import argparse
from pathlib import Path
from typing import Literal

from stages.shared.core.errors import StageError
from stages.shared.core.model_folder import how_to_make

Mode = Literal["reasoning", "one-pass", "adaptive"]
MODES: tuple[Mode, ...] = ("reasoning", "one-pass", "adaptive")
ADAPTIVE_MARGIN = 0.1  # in probability; 94 % of requests need no reasoning then, with no loss that could be measured (docs/serving.md)


def add_mode_options(parser: argparse.ArgumentParser) -> None:
    """mode, and of mode adaptive margin and one_pass_model; see open_reranker, which alone goes by them."""
    parser.add_argument("--mode", choices=MODES, default=MODES[0])
    parser.add_argument("--margin", type=float, default=ADAPTIVE_MARGIN)
    parser.add_argument("--one-pass-model", type=Path)


def check_folder(model: Path) -> None:
    """StageError where there is no such folder, before an engine, or a file of requests, is opened for nothing."""
    if not model.is_dir():
        raise StageError(f"{model}: no such folder; {how_to_make(model) or 'name one that holds a model'}")
