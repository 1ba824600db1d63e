"""The lineage record: one OpenLineage event a line in .gr2/lineage/events.jsonl, for every run of a stage.

Datasets carry the content hash that dvc.lock records. What changes from run to run (time, host, duration, code revision)
stands here and nowhere else. No environment variable is ever recorded.
"""

import json
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.context import RunContext
from tasks.graph import Stage, is_code
from tasks.identity import locked_hashes, read_lock

EVENTS = Path(".gr2") / "lineage" / "events.jsonl"
NAMESPACE = "gr2-pipeline"
PRODUCER = "https://openlineage.io/integration/gr2-pipeline"
SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL)", re.IGNORECASE)

Hashes = dict[str, dict[str, Any]]  # path -> {"hash", "size"}

_guard = threading.Lock()


class StageRun:
    """The events of one run of a stage: `start`, then `complete` or `fail`."""

    def __init__(self, root: Path, stage: Stage, context: RunContext):
        from openlineage.client.uuid import generate_new_uuid

        self.root, self.stage, self.context = root, stage, context
        self.run_id = str(generate_new_uuid())
        self.began = datetime.now(UTC)

    def start(self) -> None:
        self._append("START", {"gr2_run": {**self.context.git, "host": self.context.host, "command": self.stage.cmd}})

    def complete(self) -> None:
        """Records what dvc.lock now says of the stage, and its metrics."""
        locked = read_lock(self.root).get(self.stage.name, {})
        deps, outs = locked_hashes(locked.get("deps")), locked_hashes(locked.get("outs"))
        data = {path: entry for path, entry in deps.items() if not is_code(path)}
        facets = {
            "gr2_run": self._facts(),
            "gr2_params": {"values": locked.get("params") or {}},
            "gr2_code": {"files": {path: entry["hash"] for path, entry in deps.items() if is_code(path)}},
            "gr2_metrics": {"values": self._metrics()},
        }
        self._append("COMPLETE", facets, data, outs)

    def fail(self, message: str) -> None:
        from openlineage.client.generated.error_message_run import ErrorMessageRunFacet

        error = ErrorMessageRunFacet(message=_without_secrets(message), programmingLanguage="python", producer=PRODUCER)
        self._append("FAIL", {"gr2_run": self._facts(), "errorMessage": error})

    def _facts(self) -> dict[str, Any]:
        seconds = (datetime.now(UTC) - self.began).total_seconds()
        return {**self.context.git, "host": self.context.host, "command": self.stage.cmd, "seconds": round(seconds, 3)}

    def _metrics(self) -> Any:
        file = self.root / (self.stage.metrics_file or "metrics.json")
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _append(self, kind: str, facets: dict[str, Any], inputs: Hashes | None = None, outputs: Hashes | None = None) -> None:
        from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
        from openlineage.client.serde import Serde

        event = RunEvent(
            eventType=RunState(kind),
            eventTime=datetime.now(UTC).isoformat(),
            run=Run(runId=self.run_id, facets={name: _facet(value) for name, value in facets.items()}),
            job=Job(namespace=NAMESPACE, name=self.stage.name),
            inputs=[InputDataset(NAMESPACE, path, facets=_version(entry)) for path, entry in (inputs or {}).items()],
            outputs=[OutputDataset(NAMESPACE, path, facets=_version(entry)) for path, entry in (outputs or {}).items()],
            producer=PRODUCER,
        )
        file = self.root / EVENTS
        with _guard:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as lines:  # one write of one line: whole even beside another process
                lines.write(Serde.to_json(event) + "\n")


def read_events(root: Path) -> list[dict[str, Any]]:
    """Every event, oldest first. A line cut off by a crash is passed over."""
    events = []
    if (root / EVENTS).exists():
        for line in (root / EVENTS).read_text(encoding="utf-8").splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
    return events


def output_hashes(event: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["facets"]["version"]["datasetVersion"] for entry in event.get("outputs", [])}


def _version(entry: dict[str, Any]) -> dict[str, Any]:
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

    return {"version": DatasetVersionDatasetFacet(datasetVersion=f"md5:{entry['hash']}", producer=PRODUCER)}


def _facet(value: Any) -> Any:
    """A dict as a custom facet; a ready-made facet as it is."""
    if not isinstance(value, dict):
        return value
    from openlineage.client.generated.base import RunFacet

    return RunFacet(producer=PRODUCER).with_additional_properties(**value)


def _without_secrets(text: str) -> str:
    """`text` with the value of any secret-looking environment variable blanked out."""
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, f"<{name}>")
    return text
