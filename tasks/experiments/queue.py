"""DVC experiments: queued with `dvc exp run --queue`, and followed while tasks.experiments.workers carries them out.

Each experiment runs in a temporary copy of the commit and the edits on it, on the project's own cache, so only what its parameters change
runs. The state of each is read from the records that DVC keeps of it in .dvc/tmp/exps/run.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.dvc.log_parser import stage_message
from tasks.dvc.revisions import references
from tasks.project.overrides import PARAMS, Values, experiment_name, override
from tasks.run.stage import stage_environment
from tasks.system.errors import ProjectError
from tasks.system.git import git, git_or_none, strip_git_env
from tasks.system.yaml_files import parse, read_text

DVC = [sys.executable, "-m", "dvc"]
RUNS = Path(".dvc") / "tmp" / "exps" / "run"
QUEUE, FAILED_QUEUE = "refs/exps/celery/stash", "refs/exps/celery/failed"


@dataclass
class Experiment:
    """`rev`: DVC's own name for it in the queue. `ran`: the stages that ran, `restored`: those whose outputs came from the cache."""

    rev: str
    name: str
    state: str = "Queued"  # then Running, then Completed, Failed or Stopped
    ran: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    message: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.state not in ("Queued", "Running")


def queue(
    root: Path,
    combinations: Sequence[Values],
    targets: Sequence[str] = (),
    copied_paths: Sequence[str] = (),
    stopped: Callable[[], bool] = lambda: False,
) -> list[Experiment]:
    """Queues an experiment for each of `combinations`: all of them; or none, when one cannot be queued, or when `stopped`."""
    if git_or_none(root, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        raise ProjectError("an experiment is based on a commit, and this project has none; run: git add -A && git commit")
    overrides = [[override(key, value) for key, value in values.items()] for values in combinations]
    used_names = {ref.split("/")[-1] for _, ref in references(root, "refs/exps")} | {name for _, name in entries(root, QUEUE, FAILED_QUEUE)}
    names: list[str] = []
    for values, word_texts in zip(combinations, overrides, strict=True):
        name = experiment_name(values, used_names | set(names))
        sets = [word for text in word_texts for word in ("--set-param", text)]
        copies = [word for path in copied_paths for word in ("--copy-paths", path)]
        result = run_dvc(root, "exp", "run", "--queue", "--name", name, *sets, *copies, *targets)
        if result.returncode == 0:
            names.append(name)
        if result.returncode or stopped():
            # Half a grid is worse than none: the next try would queue its first half again, under other names.
            if names:
                run_dvc(root, "queue", "remove", *names)
            if stopped():
                raise KeyboardInterrupt
            raise ProjectError(f"{name}: DVC did not queue it: {_errors(result.stderr)}")
    return [experiment for experiment in queued(root) if experiment.name in names]


def queued(root: Path) -> list[Experiment]:
    """What waits in the queue, first come first."""
    # The stash is a reflog, whose newest entry comes first.
    return [Experiment(rev, name) for rev, name in reversed(entries(root, QUEUE))]


def paths_outside_git(root: Path) -> list[str]:
    """Relative paths named in params.yaml that git does not hold and no stage makes: an experiment needs a copy of them."""
    params = parse(read_text(root / PARAMS, "gr2 run --profile default writes it anew"), PARAMS)
    values = [value for value in _texts(params) if value.strip() and not os.path.isabs(value) and (root / value).exists()]
    # data/ is made by the stages of the copy.
    inside = [path for value in values if not (path := os.path.normpath(value)).startswith(("..", "data/", ".")) and path != "data"]
    return sorted({path for path in inside if not git(root, "ls-files", "--", path)})


def failure(lines: Sequence[str]) -> str:
    """What the stage said, out of the output of a failed experiment."""
    # The last stage that DVC began is the one that failed; those before it came to their end.
    position = max((position for position, line in enumerate(lines) if line.startswith("Running stage '")), default=-1)
    if position < 0:
        return _errors("\n".join(lines)) or "it ended without a word"
    stage = lines[position].removeprefix("Running stage '").rstrip("':")
    stage_lines = [line for line in lines[position + 1 :] if not line.startswith(("ERROR: failed to reproduce", "> "))]
    return f"{stage}: {stage_message(stage, stage_lines) or 'it ended without a word'}"


def _errors(text: str) -> str:
    return (
        "; ".join(dict.fromkeys(line.removeprefix("ERROR: ") for line in text.splitlines() if line.startswith("ERROR: "))) or text.strip()
    )


def record(root: Path, rev: str, kind: str) -> dict[str, Any] | None:
    try:
        return dict(json.loads((root / RUNS / rev / f"{rev}.{kind}").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None  # not there yet, or just being written


def entries(root: Path, *stashes: str) -> list[tuple[str, str]]:
    """(rev, name) of the experiments in DVC's stashes, newest first."""
    rows = []
    for stash in stashes:
        listed = git_or_none(root, "log", "--walk-reflogs", "--format=%H %gs", stash, "--") or ""  # no such ref: nothing was ever queued
        for line in listed.splitlines():
            if match := re.fullmatch(r"(\w+) .*dvc-exp:\w+:\w+:([^:]*)(:.*)?", line):
                rows.append((match[1], match[2]))
    return rows


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in _texts(part)]
    return [value] if isinstance(value, str) else []


def run_dvc(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DVC, *words],
        cwd=root,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # queueing edits the workspace for a moment; Ctrl-C must not leave it so
    )


def environment() -> dict[str, str]:
    return stage_environment(strip_git_env(os.environ))
