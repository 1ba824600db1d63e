"""The OpenLineage events of a run: a START and an end for every stage that ran, an end for one restored, one for the whole run.

Datasets carry the content hash that dvc.lock records. What changes from run to run (time, host, duration, code revision)
stands here and nowhere else. No environment variable is ever recorded. Stages found current leave no event.
"""

import hashlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.dvc.dep_listing import dep_listings
from tasks.dvc.dir_listing import Listing, members, object_path, read_json
from tasks.dvc.lockfile import Entry, locked_hashes, read_lock
from tasks.ledger.anchor import ref_name
from tasks.ledger.facets import NAMESPACE
from tasks.ledger.lines import EVENTS, Event, canonical, read_events
from tasks.ledger.log import anchor, append, prior_anchor
from tasks.ledger.run_context import RunContext
from tasks.project.graph import Stage, is_code
from tasks.system.redaction import without_secrets

__all__ = ["EVENTS", "StageRun", "close_run", "entry_hash", "output_hashes", "read_events", "recorded_entry"]

KINDS = {"Completed": "COMPLETE", "Failed": "FAIL", "Crashed": "FAIL", "Cancelled": "ABORT"}  # Prefect's states


class StageRun:
    """The events of one run of a stage: `start`, then `complete`, `fail` or `abort`; `restored` alone where nothing ran."""

    def __init__(self, root: Path, stage: Stage, context: RunContext):
        from tasks.ledger.facets import new_id

        self.root, self.stage, self.context = root, stage, context
        self.run_id = new_id()
        self.began = time.monotonic()  # the clock may be set while it runs

    def start(self) -> None:
        self._record("START", {"gr2_run": self._facts()})

    def complete(self, node: Mapping[str, Any] | None = None, peak_memory_mb: int = 0) -> None:
        """Records what dvc.lock says of the stage, and its metrics. `node`: host, pool, hardware, flow_run of where it ran (None: here)."""
        self._record_complete(self._facts(seconds=self._seconds(), peak_memory_mb=peak_memory_mb), node or {})

    def restored(self, source: str) -> None:
        """Its outputs came back from DVC's "cache" or "remote"."""
        self._record_complete(self._facts(restored=source), {})

    def of_experiment(self, name: str, entry: Entry, ran: bool) -> None:
        """DVC ran it, or took it from its cache, in the experiment `name`; `entry`: in the dvc.lock of the experiment's commit."""
        facts = self._facts(experiment=name, **({} if ran else {"restored": "cache"}))
        metrics = locked_hashes(entry.get("outs")).get(self.stage.metrics_file or "")
        md5 = metrics["hash"] if metrics else ""
        self._record_complete(facts, {}, entry, read_json(object_path(self.root, md5)) if md5 else {})

    def fail(self, message: str, experiment: str = "") -> None:
        self._record_end("FAIL", message, self._facts(experiment=experiment) if experiment else self._facts(seconds=self._seconds()))

    def abort(self, message: str) -> None:
        """Stopped from outside."""
        self._record_end("ABORT", message, self._facts(seconds=self._seconds()))

    def _record_end(self, kind: str, message: str, facts: dict[str, object]) -> None:
        from tasks.ledger.facets import error

        # The message is the stage's own output: it may quote a URL with a password.
        self._record(kind, {"gr2_run": facts, "errorMessage": error(without_secrets(message))})

    def _record_complete(
        self, facts: dict[str, object], node: Mapping[str, Any], entry: Entry | None = None, metrics: dict[str, object] | None = None
    ) -> None:
        """`entry` in dvc.lock and `metrics`: None for those of the workspace."""
        from tasks.ledger import facets
        from tasks.system.hardware import hardware

        locked = read_lock(self.root).get(self.stage.name, {}) if entry is None else entry
        deps, sizes = locked_hashes(locked.get("deps")), {entry["path"]: entry for entry in locked.get("outs") or []}
        metrics = read_json(self.root / (self.stage.metrics_file or "metrics.json")) if metrics is None else metrics
        # dvc.lock has one hash a package; its files are recorded here, so that `gr2 plan` can name the one that changed.
        listings = dep_listings(self.root, self.stage.name, {path: entry["hash"] for path, entry in deps.items()})
        run_facets = {
            "gr2_run": {**facts, **{key: node[key] for key in ("host", "pool") if node.get(key)}},
            "gr2_prefect": {"flow_run": self.context.flow_run, "node_flow_run": node.get("flow_run", "")},
            "gr2_params": {"values": locked.get("params") or {}},
            "gr2_code": {
                "files": {path: entry["hash"] for path, entry in deps.items() if is_code(path)},
                "packages": {path: listing for path, listing in listings.items() if is_code(path)},
            },
            "gr2_metrics": {"values": metrics},
            "gr2_environment": facets.environment(self.root),
            "gr2_hardware": node.get("hardware") or hardware(),
            "gr2_lock": {"entry": entry_hash(locked)},
            "processing_engine": facets.engine_facet(),
        }
        inputs = [facets.input_dataset(path, {**entry}, listings.get(path)) for path, entry in deps.items() if not is_code(path)]
        outputs = [
            facets.output_dataset(path, {**sizes[path], "hash": entry["hash"]}, members(self.root, path, entry["hash"]))
            for path, entry in locked_hashes(locked.get("outs")).items()
        ]
        self._record("COMPLETE", run_facets, inputs, outputs)

    def _facts(self, **more: object) -> dict[str, object]:
        return {**self.context.git, "host": self.context.host, "command": self.stage.cmd, **more}

    def _seconds(self) -> float:
        return round(time.monotonic() - self.began, 3)

    def _record(self, kind: str, run_facets: dict[str, Any], inputs: Iterable[object] = (), outputs: Iterable[object] = ()) -> None:
        from tasks.ledger import facets

        job = facets.job_facets(self.root, "STAGE", self.context.git.get("revision"))
        parent = facets.parent_facet(self.context.flow_run)
        _send(self.root, *facets.run_event(kind, self.run_id, self.stage.name, {**run_facets, **parent}, inputs, outputs, job))


def close_run(root: Path, context: RunContext, state: str, names: list[str]) -> None:
    """The end of a whole run: the state, and dvc.lock as it now stands, in an event of the job "pipeline" and in git's anchor.

    `state`: the name of the Prefect state; `names`: the stages it dealt with.
    """
    from tasks.ledger import facets
    from tasks.ledger.transport import flush
    from tasks.system.hardware import hardware

    lock = root / "dvc.lock"
    run_facets = {
        "gr2_run": {**context.git, "host": context.host, "state": state, "stages": names},
        "gr2_prefect": {"flow_run": context.flow_run},
        "gr2_environment": facets.environment(root),
        "gr2_hardware": hardware(),
        "gr2_lock": {
            "text": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else "",
            "entries": {name: entry_hash(entry) for name, entry in read_lock(root).items()},
        },
        "gr2_anchor": {"ref": ref_name(root) or "", "prior": prior_anchor(root)},
        "processing_engine": facets.engine_facet(),
    }
    run_id = facets.pipeline_run_id(context.flow_run) or facets.new_id()
    job = facets.job_facets(root, "PIPELINE", context.git.get("revision"))
    _send(root, *facets.run_event(KINDS.get(state, "OTHER"), run_id, "pipeline", run_facets, job_facets=job))
    anchor(root)
    flush()


def entry_hash(entry: Entry) -> str:
    """sha256 of the canonical JSON of a stage's entry in dvc.lock."""
    return hashlib.sha256(canonical(entry).encode()).hexdigest()


def recorded_entry(event: Event) -> str:
    """The `entry_hash` that an event of a stage recorded; empty in old events."""
    facet = event["run"]["facets"].get("gr2_lock")
    return str(facet.get("entry", "")) if isinstance(facet, dict) else ""


def recorded_listings(event: Event) -> dict[str, Listing]:
    """md5 of a folder -> its files, for each folder among the deps of a stage whose event recorded them."""
    code = event["run"]["facets"].get("gr2_code") or {}
    hashes = code.get("files") or {}
    listings = {hashes[path]: listing for path, listing in (code.get("packages") or {}).items() if path in hashes}
    for entry in event.get("inputs") or []:
        facets = entry.get("facets")
        if facets and (rows := (facets.get("gr2_members") or {}).get("files")):
            listings[facets["version"]["datasetVersion"].removeprefix("md5:")] = {str(row[0]): str(row[1]) for row in rows}
    return listings


def recorded_revision(event: Event, stage: str) -> str | None:
    """The commit at which the run of `stage` that the event tells of began; None for other events, and outside of git."""
    if event.get("eventType") != "COMPLETE" or event["job"]["name"] != stage:
        return None
    revision = (event["run"]["facets"].get("gr2_run") or {}).get("revision")
    return str(revision) if revision else None


def output_hashes(event: Event) -> dict[str, str]:
    return {entry["name"]: entry["facets"]["version"]["datasetVersion"] for entry in event.get("outputs", []) if _is_of_project(entry)}


def _is_of_project(entry: Mapping[str, object]) -> bool:
    return bool(entry.get("namespace", NAMESPACE) == NAMESPACE)


def _send(root: Path, event: object, record: Event) -> None:
    from tasks.ledger.transport import emit

    # First into the file: a server that fails must not cost the record an event.
    append(root, record)
    emit(event)
