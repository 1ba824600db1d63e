"""Where an output comes from: the chain of stages from it back to the raw file, read from dvc.lock and enriched from the events.

dvc.lock alone is enough, so the chain also holds after plain `dvc repro`; revision, time and host are known only for runs of `gr2 run`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.errors import ProjectError, nearest
from tasks.events import output_hashes, read_events
from tasks.graph import Graph, Stage, holds, is_code
from tasks.identity import locked_hashes, opened, read_lock


@dataclass(frozen=True)
class Link:
    """One stage of the chain as dvc.lock records it. `run` holds revision, dirty, host, seconds, time; empty when no event matches."""

    name: str
    command: str
    code: dict[str, str]
    params: dict[str, Any]
    inputs: dict[str, dict[str, Any]]
    outputs: dict[str, dict[str, Any]]
    metrics: dict[str, Any]
    run: dict[str, Any]
    upstream: tuple[str, ...]


@dataclass(frozen=True)
class Chain:
    """`stages`: nearest first. `matches_lock`: whether the file in the workspace is the one dvc.lock records; `note` says it in words."""

    path: str
    output: str
    stage: str
    hash: str
    size: int | None
    matches_lock: bool
    note: str
    stages: tuple[Link, ...]
    raw: dict[str, Any] | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def chain(root: Path, graph: Graph, path: str) -> Chain:
    """The chain behind `path` (relative to `root`): an output, or a file in an output folder."""
    stage = graph.producer(path.rstrip("/"))
    if stage is None:
        outs = [out for other in graph.stages.values() for out in other.outs]
        raise ProjectError(f"{path}: no stage makes it" + (nearest(path, outs) or f" (outputs: {', '.join(sorted(outs))})"))
    lock = read_lock(root)
    if stage.name not in lock:
        raise ProjectError(f"{path}: its stage '{stage.name}' has never run; run: gr2 run {stage.name}")
    output = next(out for out in stage.outs if holds(out, path.rstrip("/")))
    recorded = locked_hashes(lock[stage.name].get("outs")).get(output, {"hash": "", "size": None})
    events = read_events(root)
    with opened(root) as repo:
        note = _compare(repo, stage, output, recorded["hash"])
        names = [name for name in reversed(graph.closure([stage.name])) if name in lock]
        links = tuple(_link(repo, graph, graph[name], lock[name], events) for name in names)
    inside = _file_hash(root / path) if path.rstrip("/") != output else recorded["hash"]
    size = recorded["size"] if path.rstrip("/") == output else (root / path).stat().st_size if (root / path).is_file() else None
    raw = next((link.metrics["raw"] for link in reversed(links) if isinstance(link.metrics.get("raw"), dict)), None)
    return Chain(path, output, stage.name, inside, size, not note, note or "the file is the one dvc.lock records", links, raw)


def _link(repo: Any, graph: Graph, stage: Stage, locked: dict[str, Any], events: list[dict[str, Any]]) -> Link:
    deps, outs = locked_hashes(locked.get("deps")), locked_hashes(locked.get("outs"))
    cmd = locked.get("cmd") or stage.cmd
    return Link(
        name=stage.name,
        command=" && ".join(cmd) if isinstance(cmd, list) else cmd,
        code={path: entry["hash"] for path, entry in deps.items() if is_code(path)},
        params=_merged(locked.get("params") or {}),
        inputs={path: entry for path, entry in deps.items() if not is_code(path)},
        outputs=outs,
        metrics=_metrics(repo, outs.get(stage.metrics_file or "", {}).get("hash", "")),
        run=_run_facts(stage.name, outs, events),
        upstream=tuple(graph.upstream(stage.name)),
    )


def _merged(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of every file; keys of another file than params.yaml carry its name."""
    merged: dict[str, Any] = {}
    for file, values in params.items():
        merged.update(values if file == "params.yaml" else {f"{file}:{key}": value for key, value in values.items()})
    return merged


def _metrics(repo: Any, md5: str) -> dict[str, Any]:
    """The metrics with this very hash, from DVC's cache; empty when the cache no longer holds them."""
    try:
        values = json.loads(Path(repo.cache.local.oid_to_path(md5)).read_text(encoding="utf-8")) if md5 else {}
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {"value": values}


def _run_facts(name: str, outs: dict[str, dict[str, Any]], events: list[dict[str, Any]]) -> dict[str, Any]:
    """Facts of the newest completed run that made exactly these outputs."""
    wanted = {path: f"md5:{entry['hash']}" for path, entry in outs.items()}
    for event in reversed(events):
        if event["job"]["name"] == name and event["eventType"] == "COMPLETE" and output_hashes(event) == wanted:
            facts = event["run"]["facets"].get("gr2_run", {})
            return {"time": event["eventTime"], **{key: facts.get(key) for key in ("revision", "dirty", "host", "seconds")}}
    return {}


def _compare(repo: Any, stage: Stage, output: str, recorded: str) -> str:
    """What is to be said against the workspace's version of `output`; empty when it is the recorded one."""
    found = next((out for out in repo.index.outs if out.def_path == output and getattr(out.stage, "name", "") == stage.name), None)
    status = list(found.workspace_status().values()) if found is not None else ["new"]
    if "deleted" in status:
        return f"not in the workspace; dvc.lock records {recorded}; bring it back with: gr2 run {stage.name}"
    return f"differs from dvc.lock ({recorded}); the chain below is that of the recorded version" if status else ""


def _file_hash(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() if path.is_file() else ""
