"""Has the raw data changed since the last ingest: DVC does not look into ingest.folder, so the stage's own module is asked."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.run.stage import stage_environment
from tasks.system.errors import ProjectError

STAGE = "ingest"
METRICS = Path("data") / STAGE / "metrics.json"


def read_raw_state(root: Path, env: Mapping[str, str] | None = None, fetch: bool = False) -> dict[str, Any]:
    """{"source", "fixed", "files": {name: {"sha256", "bytes"}}, "notes"} (stages.tools.source_fingerprint); `env` is that of the stages.

    With `fetch`, files whose publisher has a newer version are fetched again first.
    """
    command = [sys.executable, "-m", f"stages.{STAGE}.raw_state", *(["--fetch"] if fetch else [])]
    environment = stage_environment(os.environ if env is None else env)
    result = subprocess.run(command, cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if result.returncode:
        said = result.stderr.strip().splitlines() or ["no message"]
        raise ProjectError(f"the raw data could not be looked at: {said[-1]}")
    return dict(json.loads(result.stdout.splitlines()[-1]))


def raw_changes(root: Path, state: dict[str, Any]) -> list[str]:
    """What differs from the raw files that the last ingest read, a line each; empty: nothing. A file of its that is gone is not told."""
    try:
        recorded = json.loads((root / METRICS).read_text(encoding="utf-8"))["raw"]["files"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return [f"{METRICS}: no ingest is recorded there"]
    return [line for name, found in state["files"].items() for line in _difference(name, recorded.get(name), found)]


def _difference(name: str, recorded: dict[str, Any] | None, found: dict[str, Any]) -> list[str]:
    if recorded is None:
        return [f"{name} is new"]
    if any(found[key] != recorded.get(key) for key in ("sha256", "bytes") if key in found):
        return [f"{name} changed: {recorded.get('bytes')} -> {found.get('bytes')} bytes, sha256 {str(found.get('sha256'))[:12]}"]
    return []
