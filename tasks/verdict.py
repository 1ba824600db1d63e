"""Whether the model of a run beats that of an earlier one, on what both answered (stages.evaluate.compare_runs)."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.identity import locked_hashes, opened, read_lock
from tasks.stage import stage_environment

OUTPUTS = "data/evaluate/outputs.parquet"
SLATES = "data/prerank/slates.parquet"
BETTER, WORSE, UNCLEAR = "better", "worse", "no clear difference"
FIRST, SAME, UNKNOWN = "first run", "same answers", "not comparable"


def output_hashes(root: Path) -> dict[str, str]:
    """path -> md5 in dvc.lock, of the answers, the slates and every model."""
    outs = {path: entry["hash"] for stage in read_lock(root).values() for path, entry in locked_hashes(stage.get("outs")).items()}
    return {path: md5 for path, md5 in outs.items() if path in (OUTPUTS, SLATES) or Path(path).name == "model"}


def judge(root: Path, old: dict[str, str], new: dict[str, str], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """`old` and `new` as `output_hashes` gives them -> {"verdict", "detail", "pairs"}; a pair has diff, low, high: new less old."""
    if OUTPUTS not in old:
        return _verdict(FIRST, "there is no earlier model to compare with")
    if OUTPUTS not in new:
        return _verdict(UNKNOWN, f"{OUTPUTS} is not in dvc.lock: the evaluation did not run")
    if old[OUTPUTS] == new[OUTPUTS]:
        return _verdict(SAME, "the new model answers every slate as the last one did")
    cached = _in_cache(root, [old[OUTPUTS], new[OUTPUTS]])
    for which, md5 in (("last", old[OUTPUTS]), ("new", new[OUTPUTS])):
        if md5 not in cached:
            return _verdict(UNKNOWN, f"the {which} run's {OUTPUTS} (md5 {md5}) is gone from DVC's cache")
    slates = _in_cache(root, [own[SLATES] for own in (old, new) if SLATES in own])
    with TemporaryDirectory(prefix="gr2-verdict-") as scratch:
        words = []
        for name, own in (("last", old), ("new", new)):
            link = Path(scratch) / f"{name}.parquet"  # a file in the cache has no ending
            link.symlink_to(cached[own[OUTPUTS]])
            words += ["--name", name, "--slates", str(slates.get(own.get(SLATES, ""), "")), str(link)]
        command = [sys.executable, "-m", "stages.evaluate.compare_runs", "--json", *words]
        environment = stage_environment(os.environ if env is None else env)
        result = subprocess.run(command, cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode:
        return _verdict(UNKNOWN, (result.stderr.strip().splitlines() or ["no message"])[-1])
    return _of_pairs(json.loads(result.stdout)["pairs"])


def _of_pairs(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    pair = pairs[0]
    word = BETTER if pair["low"] > 0 else WORSE if pair["high"] < 0 else UNCLEAR
    how = "paired" if pair["paired"] else "on other slates"
    interval = f"{pair['diff']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]"
    return {"verdict": word, "detail": f"{pair['model']}, {pair['metric']}: {interval}, {pair['n']} slates, {how}", "pairs": pairs}


def _in_cache(root: Path, hashes: list[str]) -> dict[str, Path]:
    """md5 -> file, of those that DVC's cache holds."""
    with opened(root) as repo:
        paths = {md5: Path(repo.cache.local.oid_to_path(md5)) for md5 in hashes}
    return {md5: path.absolute() for md5, path in paths.items() if path.exists()}


def _verdict(word: str, detail: str) -> dict[str, Any]:
    return {"verdict": word, "detail": detail, "pairs": []}
