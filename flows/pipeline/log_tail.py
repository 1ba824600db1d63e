"""The end of a stage's log, for a stage that failed."""

from pathlib import Path

LINES = 15


def last_lines(log: Path, message: str) -> list[str]:
    """The last lines of the file `log`; none where `message`, which is shown already, has all of them."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]
    except OSError:
        return []
    return lines if any(line.strip() not in message and message not in line for line in lines) else []
