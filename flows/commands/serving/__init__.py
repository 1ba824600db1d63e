"""Commands that rerank with a finished run, through stages.serve."""

import argparse
import os
from pathlib import Path

from flows.commands import as_flags

# Passed on as they are: stages/serve/modes.py knows their types and defaults.
_MODE = {
    "mode": "reasoning (default), one-pass: the likeliest first candidates, without a text; or adaptive: reasoning where those are unsure",
    "margin": "of mode adaptive: the best candidate's probability less the next one's, from which on it does not reason (default 0.1)",
}


def add_mode_options(parser: argparse.ArgumentParser) -> None:
    for name, text in _MODE.items():
        parser.add_argument(f"--{name}", help=text)
    parser.add_argument("--one-pass-model", metavar="FOLDER", help="of mode adaptive: the model that is asked first (default: the same)")


def mode_flags(options: argparse.Namespace, cwd: Path) -> list[str]:
    first = [f"--one-pass-model={os.path.relpath(cwd / options.one_pass_model)}"] if options.one_pass_model else []
    return [*first, *as_flags(options, _MODE)]
