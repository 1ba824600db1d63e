"""Lines that tell of progress: those of our stages, tqdm's bars as tqdm writes them, and what is neither."""

import io

import pytest
from tqdm import tqdm

from tasks.system.progress import StageProgress, read_note, read_progress


def test_bars_as_tqdm_writes_them() -> None:
    file = io.StringIO()
    for options in (
        {"total": 260, "desc": "train"},
        {"total": 20},
        {"total": 12_500_000, "desc": "u.data", "unit": "B", "unit_scale": True},
    ):
        with tqdm(file=file, initial=options["total"] // 2, ncols=100, **options):  # type: ignore[arg-type]
            pass
    lines = [line for line in file.getvalue().replace("\r", "\n").splitlines() if line.strip()]
    assert list(dict.fromkeys(map(read_progress, lines))) == [
        StageProgress(130, 260, "train"), StageProgress(10, 20), StageProgress(6_250_000, 12_500_000, "u.data")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("::progress 3/10 no. 4/5", StageProgress(3, 10, "no. 4/5")),
        ("::progress 512/0", StageProgress(512, 0)),
        ("::progress three/10 training", None),
        ("accuracy: 46% of 120/260 [see below]", None),
        ("{'loss': '2.2', 'epoch': '0.05'}", None),
    ],
)
def test_lines(line: str, progress: StageProgress | None) -> None:
    assert read_progress(line) == progress


def test_notes() -> None:
    assert read_note("::note 12 items moved\n") == "12 items moved" and read_note("note: nothing") == ""
