"""Versions of an artifact of dvc.yaml as annotated git tags in GTO's convention, which DVC, DVC Studio and gto read.

`reranker@v0.0.2` is a version; `reranker#prod#3` says that the version on its commit is in use from then on, the third such word about
this artifact. Tags are only ever added, so the tags are the history. Two who decide at once add a tag of the same name: git takes one.
https://dvc.org/doc/gto/user-guide
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.system.errors import ProjectError
from tasks.system.git import git, git_or_none

STAGE = "prod"  # GTO's stages of a model's life; ours has one
FIRST = (0, 0, 1)  # as GTO's own first version
TAG = re.compile(r"(?P<name>[^@#]+)(@v(?P<version>\d+\.\d+\.\d+)|#(?P<stage>[^#!]+))(?P<cancel>!?)(#(?P<counter>\d+))?")

Number = tuple[int, int, int]


class Overtaken(ProjectError):
    """Somebody else made a version, or put one in use, since the registry was read."""


@dataclass(frozen=True)
class ModelVersion:
    number: Number
    commit: str

    @property
    def name(self) -> str:
        return "v" + ".".join(map(str, self.number))


@dataclass(frozen=True)
class Assignment:
    """commit: the one put in use; empty where the stage was cleared."""

    counter: int
    commit: str
    time: int


@dataclass(frozen=True)
class Registry:
    """versions: by number; assignments: to STAGE, the oldest first; counter: the highest of the artifact's tags, `newest` their latest
    time (Unix)."""

    artifact: str
    versions: tuple[ModelVersion, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    counter: int = 0
    newest: int = 0

    @property
    def champion(self) -> ModelVersion | None:
        """The version in use."""
        return self.of_commit(self.assignments[-1].commit) if self.assignments else None

    @property
    def line(self) -> list[ModelVersion]:
        """How the champion came to be, the oldest first: what each version took the place of. One that was rolled back is gone from it."""
        line: list[ModelVersion] = []
        for assignment in self.assignments:
            version = self.of_commit(assignment.commit)
            if version is None:
                line = []
            elif version in line:
                line = line[: line.index(version) + 1]
            else:
                line.append(version)
        return line

    @property
    def next_number(self) -> Number:
        if not self.versions:
            return FIRST
        major, minor, patch = self.versions[-1].number
        return (major, minor, patch + 1)

    def of_commit(self, commit: str) -> ModelVersion | None:
        return next((version for version in reversed(self.versions) if version.commit == commit), None)

    def find(self, name: str) -> ModelVersion:
        """By `v0.0.2`, `0.0.2` or `reranker@v0.0.2`."""
        wanted = "v" + name.rpartition("@")[2].removeprefix("v")
        for version in self.versions:
            if version.name == wanted:
                return version
        raise ProjectError(f"{self.artifact} has no version {wanted} (it has: {', '.join(v.name for v in self.versions) or 'none'})")


def read_registry(root: Path, artifact: str) -> Registry:
    """From the annotated tags; GTO does not count lightweight ones either. artifact: its name in dvc.yaml."""
    prefix = (git_or_none(root, "rev-parse", "--show-prefix") or "").rstrip("/")
    artifact = f"{prefix}={artifact}" if prefix else artifact  # so GTO tells the artifacts of a repository's projects apart
    form = "%(objecttype) %(*objectname) %(creatordate:unix) %(refname:lstrip=2)"
    registered: dict[Number, str] = {}
    withdrawn: set[Number] = set()
    assignments, counters, times = [], [0], [0]
    for line in git(root, "for-each-ref", f"--format={form}", "refs/tags").splitlines():
        kind, *rest = line.split(" ")
        match = TAG.fullmatch(rest[-1])
        if kind != "tag" or len(rest) != 3 or not match or match["name"] != artifact:
            continue
        commit, stamp = rest[0], int(rest[1])
        counters.append(int(match["counter"] or 0))
        times.append(stamp)
        if match["version"]:
            major, minor, patch = map(int, match["version"].split("."))
            number = (major, minor, patch)
            if match["cancel"]:
                withdrawn.add(number)
            else:
                registered[number] = commit
        elif match["stage"] == STAGE:
            assignments.append(Assignment(counters[-1], "" if match["cancel"] else commit, stamp))
    versions = tuple(ModelVersion(number, registered[number]) for number in sorted(registered.keys() - withdrawn))
    ordered = tuple(sorted(assignments, key=lambda assignment: (assignment.time, assignment.counter)))
    return Registry(artifact, versions, ordered, max(counters), max(times))


def put_in_use(root: Path, registry: Registry, version: ModelVersion, paragraphs: Sequence[str]) -> list[str]:
    """Adds the tag that puts `version` in use, and that of the version itself where it is new: both, or neither. -> their names.

    registry: as it was when the decision began. Overtaken where another tag has come since. paragraphs: of the tags' message.
    """
    names = [f"{registry.artifact}#{STAGE}#{registry.counter + 1}"]
    if version not in registry.versions:
        names.insert(0, f"{registry.artifact}@{version.name}")
    now = max(int(time.time()), registry.newest + 1)  # readers sort by time, which has seconds only
    tags = [(name, _tag_object(root, name, version.commit, now, paragraphs)) for name in names]
    # `create` fails where the tag is there; one transaction, so nobody sees a version that is in use and has no number.
    commands = ["start", *(f"create refs/tags/{name} {tag}" for name, tag in tags), "prepare", "commit"]
    try:
        git(root, "update-ref", "--stdin", stdin="\n".join(commands) + "\n")
    except ProjectError as error:
        found = read_registry(root, registry.artifact)
        if found == registry:
            raise
        who = found.champion.name if found.champion else "no version"
        raise Overtaken(
            f"another promotion or rollback of {registry.artifact} was faster: {who} is in use now, and this decision was made against "
            f"{registry.champion.name if registry.champion else 'no version'}; decide again ({error})"
        ) from None
    return names


def new_version(registry: Registry, commit: str) -> ModelVersion:
    """The version on `commit`: the one that it has, else the next."""
    return registry.of_commit(commit) or ModelVersion(registry.next_number, commit)


def _tag_object(root: Path, name: str, commit: str, stamp: int, paragraphs: Sequence[str]) -> str:
    """An annotated tag without a ref yet."""
    identity = git_or_none(root, "var", "GIT_COMMITTER_IDENT") or "gr2 <gr2@localhost> 0 +0000"  # who has given git no name
    who = identity.rsplit(" ", 2)[0]
    message = "\n\n".join(paragraph.strip() for paragraph in paragraphs if paragraph.strip())
    text = f"object {commit}\ntype commit\ntag {name}\ntagger {who} {stamp} +0000\n\n{message}\n"
    return git(root, "mktag", stdin=text).strip()
