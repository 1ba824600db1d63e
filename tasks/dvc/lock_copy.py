"""dvc.lock is written by DVC in place: a DVC that is killed meanwhile leaves it empty or cut, and then neither DVC nor gr2 can read it.

So a copy is kept before each call of DVC, and with it a note of the stage: as long as a stage is noted, DVC may have been killed while
it wrote. All of this happens under DVC's own lock, so no DVC that lives is in the middle of a write.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tasks.dvc.lockfile import LOCK, Entry, LockedData, as_dvc_writes, parse_lock
from tasks.project.graph import read_graph
from tasks.system.errors import ProjectError
from tasks.system.git import git_bytes
from tasks.system.yaml_files import write_text

COPY = Path(".gr2") / "dvc.lock"
SET_ASIDE = Path(".gr2") / "dvc.lock.cut"  # what the mended file was
NOTES = Path(".gr2") / "unfinished"  # a file for each stage that DVC was asked for, until it is known what became of it
STAGE = re.compile(r"^  \S.*:[ ]*$", re.MULTILINE)  # the first line of a stage's entry
HEADER = "schema: '2.0'\nstages:\n"
FIRST_NAME = re.compile(r" {1,2}|  [^\s:]+:?")  # cut; YAML takes a name without its colon for a text
CONFLICT = re.compile(r"^<<<<<<< ", re.MULTILINE)  # of a merge: for the user alone to resolve


def noted_stages(root: Path) -> list[str]:
    """The stages that DVC was asked for and whose end is not recorded."""
    return sorted(path.name for path in (root / NOTES).glob("[!.]*"))


def keep(root: Path) -> None:
    """Copies dvc.lock, unless it cannot be read. DVC's lock is held."""
    text = _bytes(root / LOCK)
    if text is None:
        (root / COPY).unlink(missing_ok=True)
    elif text != _bytes(root / COPY):
        (root / COPY).parent.mkdir(exist_ok=True)
        with suppress(ProjectError, UnicodeDecodeError):
            parse_lock(text.decode("utf-8"), LOCK)
            write_text(root / COPY, text.decode("utf-8"))


def mend(root: Path) -> bool:
    """Puts dvc.lock right where a DVC was killed while it wrote it, and says so; whether it was not. DVC's lock is held.

    Each stage then has its newest whole entry. What DVC had run meanwhile is in its run cache, from where the next run restores it.
    """
    text = _bytes(root / LOCK)
    # Almost every call ends here, without parsing: the file is the one that was kept.
    if text is None or text == _bytes(root / COPY):
        return False
    kept_entries = _kept_entries(root)
    entries, cut = _whole_entries(root, text, kept_entries)
    # A stage may also be missing because the user took it out. It counts as lost only while a DVC was at work.
    missing = [name for name in kept_entries if name not in entries] if noted_stages(root) else []
    if not (cut or missing) or text == (committed := git_bytes(root, "show", f"HEAD:./{LOCK}")):
        return False
    source = "the copy from before that run" if kept_entries else "the last commit" if committed else ""
    base = kept_entries or (parse_lock(committed.decode("utf-8"), f"HEAD: {LOCK}") if committed else {})
    mended = {**base, **entries}
    (root / SET_ASIDE).parent.mkdir(exist_ok=True)
    # Kept in case this guess is wrong: it may be an edit of the user that only looks like a cut.
    (root / SET_ASIDE).write_bytes(text)
    if mended:
        write_text(root / LOCK, as_dvc_writes(mended))
    else:
        (root / LOCK).unlink()
    action = f"mended from {source}" if source else "removed; nothing had been recorded before" if not mended else "its whole entries kept"
    print(f"gr2: {LOCK}: a DVC was killed while it wrote it; {action} (as it was: {SET_ASIDE})", file=sys.stderr, flush=True)
    return True


def is_cut(text: str) -> bool:
    """Whether `text`, of a dvc.lock, is one that a write of DVC begins with, as far as the text itself tells."""
    try:
        return not parse_lock(text, LOCK) or any(not isinstance(entry, dict) for entry in parse_lock(text, LOCK).values())
    except (ProjectError, ValueError, TypeError, AttributeError):
        return not CONFLICT.search(text) and _before_last(text) is not None


def _whole_entries(root: Path, text: bytes, kept_entries: dict[str, Entry]) -> tuple[dict[str, Entry], bool]:
    """The entries in `text` that are whole, and whether it is cut. What is no YAML for another reason is left alone: none, not cut."""
    decoded = text.decode("utf-8", "ignore")
    if is_cut(decoded):
        return _before_last(decoded) or {}, True
    try:
        entries = parse_lock(decoded, LOCK)
    except (ProjectError, ValueError, TypeError, AttributeError):
        return kept_entries, False
    # DVC writes stages one after the other, so only the last one can be cut where the text is still valid YAML.
    last = next(reversed(entries))
    if not noted_stages(root) or entries[last] == kept_entries.get(last) or _is_complete(root, last, entries[last], decoded):
        return entries, False
    return {name: entry for name, entry in entries.items() if name != last}, True


def _before_last(text: str) -> dict[str, Entry] | None:
    """The entries before the last one that `text` begins; None where these cannot be read either, so that it is more than cut."""
    starts = [match.start() for match in STAGE.finditer(text)]
    if len(starts) < 2:
        head = text[: starts[0]] if starts else text
        # Cut in the header, right behind it or in the first stage's name: a file that DVC had just begun, with no stage in it.
        return {} if HEADER.startswith(head) or FIRST_NAME.fullmatch(head.removeprefix(HEADER)) else None
    try:
        entries = parse_lock(text[: starts[-1]], LOCK)
    except (ProjectError, ValueError, TypeError, AttributeError):
        return None
    return entries if all(isinstance(entry, dict) for entry in entries.values()) else None


def _is_complete(root: Path, name: str, entry: Entry, text: str) -> bool:
    """Whether the last entry is all that DVC writes of a stage: the file may be cut where a line ends."""
    try:
        outs = set(read_graph(root)[name].outs)
    except ProjectError:
        return False
    rows = list(_rows(entry))
    return (
        text.endswith("\n")
        and outs <= {row.get("path") for row in entry.get("outs") or []}
        and all("size" in row and ("nfiles" in row or not str(row.get("md5")).endswith(".dir")) for row in rows if "md5" in row)
        and all(row.keys() - {"path", "hash"} for row in rows)
    )


def _rows(entry: Entry) -> Iterator[LockedData]:
    for rows in (entry.get("deps"), entry.get("outs")):
        yield from (row for row in rows or [] if isinstance(row, dict))


def _kept_entries(root: Path) -> dict[str, Entry]:
    text = _bytes(root / COPY)
    return parse_lock(text.decode("utf-8"), str(COPY)) if text else {}


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
