"""Promotions: annotated git tags promoted/NAME on commits whose outputs are all in DVC's cache. gr2 gc keeps them, like every tag."""

from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.dvc.lockfile import read_lock
from tasks.dvc.repo import open_repo
from tasks.ledger.anchor import promotion_trailer
from tasks.system.errors import ProjectError
from tasks.system.git import git, git_or_none

PROMOTED = "refs/tags/promoted/"
RECORDED = ("dvc.lock", "dvc.yaml", "params.yaml")


@dataclass(frozen=True)
class Promotion:
    name: str
    commit: str
    time: str
    message: str

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def promotions(root: Path) -> list[Promotion]:
    """The newest first."""
    # Of an annotated tag the commit it points to; a lightweight one, which a person may have made, has no object of its own.
    form = (
        "%(refname)%09%(*objectname)%(if)%(*objectname)%(then)%(else)%(objectname)%(end)%09%(creatordate:iso-strict)%09%(contents:subject)"
    )
    lines = git(root, "for-each-ref", "--sort=-creatordate", f"--format={form}", PROMOTED).splitlines()
    return [Promotion(ref.removeprefix(PROMOTED), *rest) for ref, *rest in (line.split("\t", 3) for line in lines)]


def promote(root: Path, name: str, message: str | None = None) -> Promotion:
    """Tags HEAD as promoted/`name`. ProjectError unless its dvc.lock records exactly what lies in the workspace and in the cache."""
    tag = f"promoted/{name}"
    if git_or_none(root, "check-ref-format", f"refs/tags/{tag}") is None:
        raise ProjectError(f"promote {name}: git takes no such name for a tag; use letters, digits, dots and dashes")
    if git_or_none(root, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}") is not None:
        raise ProjectError(f"promote {name}: there is such a promotion already (git show {tag}); choose another name")
    check_committed(root)
    check_outputs(root)
    trailer = promotion_trailer(root)  # a tag that is pushed vouches for the record as it is now
    # Annotated: a lightweight tag has no message, and git push --follow-tags leaves it behind.
    messages = ["--message", message or f"Promoted as {name}", *(["--message", trailer] if trailer else [])]
    git(root, "tag", "--annotate", *messages, "--", tag, "HEAD")
    return next(promotion for promotion in promotions(root) if promotion.name == name)


def check_committed(root: Path) -> None:
    """ProjectError unless HEAD has dvc.lock, dvc.yaml and params.yaml as they stand."""
    if git_or_none(root, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        raise ProjectError("promote: a promotion is a tag on a commit, and this project has none; run: git add -A && git commit")
    # A commit with another dvc.lock than the one that is checked would be promoted unseen.
    for file in RECORDED:
        if (
            git_or_none(root, "cat-file", "-e", f"HEAD:./{file}") is None
            or git_or_none(root, "diff", "--quiet", "HEAD", "--", file) is None
        ):
            raise ProjectError(f"promote: {file} is not committed as it stands; run: git add {' '.join(RECORDED)} && git commit")


def check_outputs(root: Path) -> None:
    """Every stage has run, and each output is the recorded one, in the workspace and in the cache."""
    lock = read_lock(root)
    with open_repo(root) as repo:
        for stage in repo.index.stages:
            name = getattr(stage, "name", None)  # the stage of a .dvc file has none
            if name and name not in lock:
                raise ProjectError(f"promote: the stage {name} has never run; run: gr2 run, and commit dvc.lock")
            for out in stage.outs:
                if status := out.workspace_status():
                    word = next(iter(status.values()))
                    raise ProjectError(f"promote: {out.def_path} is not what dvc.lock records ({word}); run: gr2 run, and commit dvc.lock")
                # The workspace is the next run's to change; the promotion lasts only as long as the cache holds it.
                if out.use_cache and out.changed_cache():
                    raise ProjectError(f"promote: {out.def_path} is not in DVC's cache; put it there with: dvc commit, or dvc fetch")
