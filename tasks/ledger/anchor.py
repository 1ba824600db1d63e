"""The heads of the lineage record in git: a ref to a chain of commits, one for each run, each of which holds the head as it then was.

As a chain it can be pushed by fast-forward alone, so a remote that refuses forced pushes keeps every head it ever got, and no writer of
this machine takes one back. The commits are signed where git is set up to sign.
"""

from dataclasses import dataclass
from pathlib import Path

from tasks.ledger.lines import Head, first_hash, read_head
from tasks.system.git import git_bytes, git_or_none

REF = "refs/gr2/lineage"
FILE = "head.json"  # in each commit
TRAILER = "Lineage-Record"
REMOTE_S = 10  # a remote that does not answer is no reason to wait longer


@dataclass(frozen=True)
class Anchor:
    """A commit of the ref, and the head in it; None where it holds none. The blob of a release before there were commits counts, too."""

    commit: str
    head: Head | None


def ref_name(root: Path) -> str | None:
    """The ref of the ledger at `root`: a worktree, and a project in a folder of a repository, has one of its own; so has one for which
    git's setting gr2.record gives a name, as where several checkouts push to one remote. None outside git."""
    folders = git_or_none(root, "rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir", "--show-prefix")
    if folders is None:
        return None
    git_folder, common_folder, *prefix = folders.splitlines()
    worktree = [Path(git_folder).name] if git_folder != common_folder else []
    record_name = git_or_none(root, "config", "gr2.record") or ""
    return "-".join([REF, *filter(None, [record_name]), *worktree, *(part for line in prefix for part in line.split("/") if part)])


def ref_target(root: Path) -> str:
    """What the ref points to; empty where there is none."""
    name = ref_name(root)
    return (git_or_none(root, "rev-parse", "--verify", "--quiet", name) or "") if name else ""


def is_chain(root: Path) -> bool:
    """False where there is no ref, or one of a release before 0.3, which pointed to the head alone."""
    return bool(tip := ref_target(root)) and git_or_none(root, "cat-file", "-t", tip) == "commit"


def git_anchor(root: Path) -> str:
    """The text of the newest head; empty where there is none."""
    return _text(root, tip) if (tip := ref_target(root)) else ""


def set_git_anchor(root: Path, text: str) -> None:
    """Adds a commit with the head `text`. Where git refuses (a repository that cannot be written), the ref stays as it was."""
    name, parent = ref_name(root), ref_target(root)
    blob = git_or_none(root, "hash-object", "-w", "--stdin", stdin=text) if name else None
    tree = git_or_none(root, "mktree", stdin=f"100644 blob {blob}\t{FILE}\n") if blob else None
    if not name or not tree:
        return
    # The ref of an old release points to a blob, which no commit can have as its parent.
    parents = ["-p", parent] if parent and git_or_none(root, "cat-file", "-t", parent) == "commit" else []
    words = [*parents, "-m", "Head of the lineage record", tree]
    signed = git_or_none(root, *_identity(root), "commit-tree", "-S", *words) if _signs(root) else None
    if commit := signed or git_or_none(root, *_identity(root), "commit-tree", *words):  # a key that cannot sign now is no reason for none
        # With the value expected before (zeros: no ref): if another process was faster, git refuses, and its head stays.
        git_or_none(root, "update-ref", name, commit, parent or "0" * 40)


def anchors(root: Path, name: str | None = None) -> list[Anchor]:
    """The chain, newest first. `name`: of the ref, where it is known."""
    name = name or ref_name(root)
    listed = git_or_none(root, "rev-list", "--first-parent", name) if name else None
    if name and not listed:  # no ref, or a blob
        text = git_or_none(root, "cat-file", "blob", name)
        return [Anchor(ref_target(root), Head.parse(f"{text}\n"))] if text else []
    commits = (listed or "").split()
    return [Anchor(commit, Head.parse(text)) for commit, text in zip(commits, _texts(root, commits), strict=True)]


def remote_target(root: Path, name: str) -> tuple[str, str] | None:
    """The remote and what its ref `name` points to (empty where it has none); None without a remote, or where it does not answer."""
    remote = next(iter(_remotes(root)), "")
    if not remote:
        return None
    listed = git_or_none(root, "ls-remote", remote, name, limit_s=REMOTE_S)
    return None if listed is None else (remote, (listed.split() or [""])[0])


def promotion_trailer(root: Path) -> str:
    """For the message of a promotion's tag: the head of the record, and its first hash, which says which record; empty without one."""
    head = read_head(root)
    first = first_hash(root)
    return f"{TRAILER}: {head.index} {head.hash} {head.bytes} {first}" if head and first else ""


def promoted_heads(root: Path) -> list[tuple[str, Head, str]]:
    """(tag, head, first hash of its record) for each promotion that has them: promoted/NAME, and versions (reranker@v0.0.1)."""
    form = f"%(refname:lstrip=2) %(contents:trailers:key={TRAILER},valueonly,separator= )"
    listed = git_or_none(root, "for-each-ref", f"--format={form}", "refs/tags/promoted/", "refs/tags/*@v*") or ""
    rows = [line.split() for line in listed.splitlines()]
    return [
        (row[0], Head(int(row[1]), row[2], int(row[3])), row[4]) for row in rows if len(row) == 5 and row[1].isdigit() and row[3].isdigit()
    ]


def _remotes(root: Path) -> list[str]:
    """`origin` first."""
    names = (git_or_none(root, "remote") or "").split()
    return sorted(names, key=lambda name: name != "origin")


def _text(root: Path, tip: str) -> str:
    is_commit = git_or_none(root, "cat-file", "-t", tip) == "commit"
    text = git_or_none(root, "cat-file", "blob", f"{tip}:{FILE}" if is_commit else tip)
    return f"{text}\n" if text else ""


def _texts(root: Path, commits: list[str]) -> list[str]:
    """The heads in `commits`, in one call of git however many there are."""
    # One process of git for all: the chain has a commit for each run.
    names = "".join(f"{commit}:{FILE}\n" for commit in commits).encode()
    rest, texts = git_bytes(root, "cat-file", "--batch", stdin=names) or b"", []
    for _ in commits:
        first, _, rest = rest.partition(b"\n")
        words = first.split(b" ")
        size = int(words[2]) if words[1:2] == [b"blob"] else -1
        texts.append(rest[: max(size, 0)].decode("utf-8", "replace"))
        rest = rest[size + 1 :]
    return texts


def _identity(root: Path) -> list[str]:
    """A commit needs a name, which the user may not have given yet."""
    has_identity = git_or_none(root, "config", "user.name") and git_or_none(root, "config", "user.email")
    return [] if has_identity else ["-c", "user.name=gr2", "-c", "user.email=gr2@localhost"]


def _signs(root: Path) -> bool:
    """Whether git signs the user's commits, or knows a key to sign with (commit-tree signs only when told to)."""
    gpgsign = git_or_none(root, "config", "--type=bool", "commit.gpgsign")
    return gpgsign == "true" or (gpgsign is None and bool(git_or_none(root, "config", "user.signingkey")))
