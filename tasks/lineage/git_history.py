"""Every dvc.lock that git holds: of each branch, tag and experiment as it now stands, and of each commit that changed it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from tasks.dvc.lockfile import Entry
from tasks.dvc.revisions import resolve
from tasks.system.errors import ProjectError
from tasks.system.git import git_bytes, git_or_none
from tasks.system.yaml_files import parse

LOCK = "dvc.lock"
STAGE = re.compile(r"^  (?=\S)", re.MULTILINE)  # in dvc.lock as DVC writes it, nothing but a stage's name stands at this column
HEADER = re.compile(r"schema: '2\.0'\nstages:\n(?=  \S)")


@dataclass
class Lock:
    """A distinct text of dvc.lock. `refs`: full names of the refs that have it now, sorted; `commits` that made it so: newest first."""

    text: bytes
    refs: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)

    @property
    def short_refs(self) -> set[str]:
        return {_short(ref) for ref in self.refs}

    @property
    def source(self) -> str:
        """What to call it in an error."""
        return f"{LOCK} of {(self.commits or sorted(self.short_refs))[0]}"


def git_locks(root: Path) -> list[Lock]:
    """The distinct ones, newest commit first; none outside of git."""
    prefix = git_or_none(root, "rev-parse", "--show-prefix")
    if prefix is None:
        return []
    listed = git_or_none(root, "for-each-ref", "--format=%(objecttype) %(*objecttype) %(refname)") or ""
    rows = [line.split() for line in listed.splitlines()]
    # The type of what an annotated tag points to stands in the second place; tags of blobs and trees have no dvc.lock.
    refs = [words[-1] for words in rows if "commit" in words[:-1]]
    # --full-history: git's default simplification would leave out a dvc.lock that only a merged branch had.
    changing = (git_or_none(root, "log", "--all", "--full-history", "--format=%H", "--", LOCK) or "").split()
    names = [*changing, *refs]
    texts = _blobs(root, [f"{name}:{prefix}{LOCK}" for name in names])
    locks: dict[bytes, Lock] = {}
    for name, text in zip(names, texts, strict=True):
        if text is not None:
            lock = locks.setdefault(text, Lock(text))
            if name.startswith("refs/"):
                lock.refs.append(name)
            else:
                lock.commits.append(name)
    return list(locks.values())


def lock_at(root: Path, revision: str) -> tuple[str, Lock] | None:
    """The commit of a revision or experiment and its dvc.lock; None for neither. ProjectError for one without."""
    commit = resolve(root, revision)
    if commit is None:
        return None
    prefix = git_or_none(root, "rev-parse", "--show-prefix") or ""
    text = _blobs(root, [f"{commit}:{prefix}{LOCK}"])[0]
    if text is None:
        raise ProjectError(f"{revision}: that commit ({commit[:9]}) has no {LOCK}; nothing had run, or it was not committed")
    return commit, Lock(text, commits=[commit])


class Parser:
    """dvc.lock texts into entries by stage; a stage's text that was met before is not parsed again."""

    def __init__(self) -> None:
        self.entries_by_text: dict[str, dict[str, Entry]] = {}

    def __call__(self, text: bytes, source: str) -> dict[str, Entry]:
        decoded = text.decode("utf-8", "replace")
        header = HEADER.match(decoded)
        if header is None:
            document = parse(decoded, source)
            stages = document.get("stages") if isinstance(document, dict) else None
            return dict(stages) if isinstance(stages, dict) else {}
        entries: dict[str, Entry] = {}
        for part in STAGE.split(decoded[header.end() :])[1:]:
            if part not in self.entries_by_text:
                entry = parse(part, source)
                self.entries_by_text[part] = entry if isinstance(entry, dict) else {}
            entries.update(self.entries_by_text[part])
        return entries


def _blobs(root: Path, names: list[str]) -> list[bytes | None]:
    """Contents by name; None for what git does not have."""
    requests = "".join(f"{name}\n" for name in names).encode()
    answer = git_bytes(root, "cat-file", "--batch", stdin=requests)
    if answer is None:
        raise ProjectError(f"git cat-file --batch in {root}: git could not read its objects; check them with: git fsck")
    contents: list[bytes | None] = []
    position = 0
    for _ in names:
        end = answer.index(b"\n", position)
        words = answer[position:end].split(b" ")
        size = int(words[-1]) if words[-2:-1] == [b"blob"] else None
        contents.append(None if size is None else answer[end + 1 : end + 1 + size])
        position = end + 1 + (size + 1 if size is not None else 0)
    return contents


def _short(ref: str) -> str:
    for folder, word in (("refs/heads/", ""), ("refs/tags/", "tag "), ("refs/remotes/", ""), ("refs/exps/", "experiment ")):
        if ref.startswith(folder):
            return word + ref.removeprefix(folder)
    return ref
