"""How two or more runs are compared: stages.tools.compare_runs, on what each answered."""

import sys
from collections.abc import Iterable
from pathlib import Path

OUTPUTS = "data/evaluate/outputs.parquet"
SLATES = "data/retrieve/slates.parquet"


def compare_command(
    names: Iterable[str], outputs: Iterable[Path | None], slates: Iterable[Path | None], *options: str, as_json: bool
) -> list[str]:
    """The runs in the same order in all three; the first is what the others are held against. `slates`: None where they are not at hand.

    A file may lie in DVC's cache, where it has no ending.
    """
    words = [*options, *(f"--name={name}" for name in names), *(f"--slates={path or ''}" for path in slates)]
    return [sys.executable, "-m", "stages.tools.compare_runs", *words, *(["--json"] if as_json else []), "--", *map(str, outputs)]
