"""Which files of a folder among a stage's deps and outputs changed: dvc.lock keeps one hash for the whole folder.

What the folder held at the recorded run comes from DVC's cache (outputs of stages), else from the lineage record (code packages, raw
data, models given by path), else git says what changed since the commit of that run.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.dvc.dir_listing import Change, Listing, listing_changes, listing_in
from tasks.ledger.events import recorded_listings, recorded_revision
from tasks.ledger.lines import Event, read_events
from tasks.system.git import git_or_none

MOST_NAMED = 20  # files that are named one by one
GIT_WORDS = {"A": "is new", "D": "is missing"}


class ChangedFiles:
    """Answers for the project at `root`, which `repo` has open. The lineage record is read at the first question that needs it."""

    def __init__(self, root: Path, repo: Any):
        self.root, self.repo = root, repo

    def of(self, stage: str, dataset: Any, recorded: str) -> list[Change]:
        """The changes in `dataset`, a dep or output of DVC's stage, against its `recorded` md5; the folder alone if nothing tells more."""
        from tasks.dvc.internals import folder_listing  # DVC is loaded by now

        folder = str(dataset.def_path)
        if not recorded.endswith(".dir") or not dataset.fs.isdir(dataset.fs_path):
            return [(folder, "modified")]
        current = folder_listing(dataset)
        # From the cache's folder, not through DVC: DVC is open here, and its lock would be waited for for ever.
        before = listing_in(Path(self.repo.cache.local.path), recorded) or self._listings.get(recorded)
        changes = self._by_git(stage, folder, current) if before is None else listing_changes(folder, before, current)
        if len(changes) > MOST_NAMED:
            return [*changes[:MOST_NAMED], (folder, f"modified: {len(changes) - MOST_NAMED} more files")]
        return changes or [(folder, "modified")]

    def _by_git(self, stage: str, folder: str, current: Listing) -> list[Change]:
        """Since the commit of the newest recorded run of `stage`, or HEAD; empty outside of git, and for what git does not hold."""
        revision = next((recorded for event in reversed(self._events) if (recorded := recorded_revision(event, stage))), "HEAD")
        lines = git_or_none(self.root, "diff", "--name-status", "--no-renames", "--relative", revision, "--", folder) or ""
        # git diff is silent about files that were never added.
        untracked = git_or_none(self.root, "ls-files", "--others", "--exclude-standard", "--", folder) or ""
        changes = [(path, GIT_WORDS.get(letter, "modified")) for letter, path in (line.split("\t", 1) for line in lines.splitlines())]
        changes += [(path, "is new") for path in untracked.splitlines()]
        return [
            (path, word)
            for path, word in sorted(changes)
            if path.removeprefix(f"{folder}/") in current or (word == "is missing" and not self._is_ignored(path))
        ]

    def _is_ignored(self, path: str) -> bool:
        """Whether .dvcignore keeps it out of the folder's hash."""
        return bool(self.repo.dvcignore.is_ignored_file(str(self.root / path)))

    @cached_property
    def _events(self) -> list[Event]:
        return read_events(self.root)

    @cached_property
    def _listings(self) -> dict[str, Listing]:
        """The folders that the record knows, by their md5."""
        return {md5: listing for event in self._events for md5, listing in recorded_listings(event).items()}
