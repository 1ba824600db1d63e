"""Whether the model of a run beats that of an earlier one, on what both answered (stages.tools.compare_runs)."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict

from tasks.domain.compare_command import OUTPUTS, SLATES, compare_command
from tasks.dvc.dir_listing import object_path
from tasks.dvc.lockfile import locked_hashes, read_lock
from tasks.run.stage import stage_environment

BETTER, WORSE, UNCLEAR = "better", "worse", "no clear difference"
FIRST, SAME, UNKNOWN = "first run", "same answers", "not comparable"


class Pair(TypedDict):
    """A row of stages.tools.compare_runs: the difference of two runs (new minus old) in one metric of one model, with its interval."""

    model: str
    metric: str
    diff: float
    low: float
    high: float
    n: int
    paired: bool


class RunVerdict(TypedDict):
    """`verdict`: one of the words above; `pairs`: what it rests on, the first one decides."""

    verdict: str
    detail: str
    pairs: list[Pair]
    against: NotRequired[str]


def output_hashes(root: Path) -> dict[str, str]:
    """path -> md5 in dvc.lock, of the answers, the slates and every model."""
    # From dvc.lock, not from the files: these may have been edited since, and models take long to hash.
    outs = {path: entry["hash"] for stage in read_lock(root).values() for path, entry in locked_hashes(stage.get("outs")).items()}
    return {path: md5 for path, md5 in outs.items() if path in (OUTPUTS, SLATES) or Path(path).name == "model"}


def compare_with_previous(root: Path, old: dict[str, str], new: dict[str, str], env: Mapping[str, str] | None = None) -> RunVerdict:
    """`old` and `new` as `output_hashes` gives them."""
    if OUTPUTS not in old:
        return _verdict(FIRST, "there is no earlier model to compare with")
    if OUTPUTS not in new:
        return _verdict(UNKNOWN, f"{OUTPUTS} is not in dvc.lock: the evaluation did not run")
    # Equal hashes are equal answers: no need to read either, and no interval around zero to explain.
    if old[OUTPUTS] == new[OUTPUTS]:
        return _verdict(SAME, "the new model answers every slate as the last one did")
    runs = {"last": old, "new": new}
    files = {name: _cached(root, hashes, OUTPUTS) for name, hashes in runs.items()}
    for name, hashes in runs.items():
        if files[name] is None:
            return _verdict(UNKNOWN, f"the {name} run's {OUTPUTS} (md5 {hashes[OUTPUTS]}) is gone from DVC's cache")
    slates = [_cached(root, hashes, SLATES) for hashes in runs.values()]
    command = compare_command(runs, files.values(), slates, as_json=True)
    environment = stage_environment(os.environ if env is None else env)
    result = subprocess.run(command, cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    # A comparison that cannot be made must not fail the scheduled run that trained the model.
    if result.returncode:
        return _verdict(UNKNOWN, (result.stderr.strip().splitlines() or ["no message"])[-1])
    return _of_pairs(json.loads(result.stdout)["pairs"])


def _of_pairs(pairs: list[Pair]) -> RunVerdict:
    pair = pairs[0]
    word = BETTER if pair["low"] > 0 else WORSE if pair["high"] < 0 else UNCLEAR
    pairing = "paired" if pair["paired"] else "on other slates"
    interval = f"{pair['diff']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]"
    return {"verdict": word, "detail": f"{pair['model']}, {pair['metric']}: {interval}, {pair['n']} slates, {pairing}", "pairs": pairs}


def _cached(root: Path, hashes: dict[str, str], path: str) -> Path | None:
    """Where DVC's cache has that version of `path`; nothing is fetched."""
    # From the cache, not the workspace, where the newer run has replaced the file.
    object_file = object_path(root, hashes[path]) if path in hashes else None
    return object_file if object_file and object_file.exists() else None


def _verdict(word: str, detail: str) -> RunVerdict:
    return {"verdict": word, "detail": detail, "pairs": []}
