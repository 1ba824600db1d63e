"""How far a stage is, as it says on its output; stages/shared/core/progress.py writes such lines."""

import re
from dataclasses import dataclass

VARIABLE = "GR2_PROGRESS"  # in a stage's environment: it writes the lines below instead of drawing bars

LINE = re.compile(r"::progress (?P<done>\d+)/(?P<total>\d+)(?: (?P<part>.*))?")
NOTE = re.compile(r"::note (?P<text>.*)")
# A bar of tqdm, which libraries draw whatever the environment says: `train:  46%|████▌     | 120/260 [01:10<01:20,  1.7it/s]`.
COUNT = r"[\d.]+[kMG]?"
BAR = re.compile(rf"(?:(?P<part>[^|]*?): *)?\d+%\|[^|]*\| *(?P<done>{COUNT})/(?P<total>{COUNT}) \[.*")
UNITS = {"k": 1_000, "M": 1_000_000, "G": 1_000_000_000}


@dataclass(frozen=True)
class StageProgress:
    """`done` of `total` (0: not known) of one part of a stage's work."""

    done: int
    total: int
    part: str = ""


def read_progress(text: str) -> StageProgress | None:
    """What a line of a stage's output says of its progress; None for any other line."""
    text = text.strip()
    if match := LINE.fullmatch(text):
        return StageProgress(int(match["done"]), int(match["total"]), match["part"] or "")
    if match := BAR.fullmatch(text):
        return StageProgress(_number(match["done"]), _number(match["total"]), match["part"] or "")
    return None


def read_note(text: str) -> str:
    """What a stage has to say to a person; empty for any other line of its output."""
    match = NOTE.fullmatch(text.strip())
    return match["text"] if match else ""


def _number(text: str) -> int:
    """Of a bar's count: `120`, `4.5M`."""
    return round(float(text.rstrip("kMG")) * UNITS.get(text[-1], 1))
