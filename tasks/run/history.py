"""What became of each scheduled run: a file each in .gr2/records, written whole when the run begins and again when it ends."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.system.errors import ProjectError
from tasks.system.yaml_files import read_text, write_text

RECORDS = Path(".gr2") / "records"
RUNNING = "Running"
OUTCOMES = ("Completed", "NothingNew", "Skipped", "Missed", "Cancelled", "Failed", "Crashed")


@dataclass(frozen=True)
class Record:
    """Times are ISO 8601 in UTC. `scheduled`: when it was due; `began`: empty when it never did.

    `stages`: those that ran; `raw`: `changes` of the data that ingest reads, against its last run; `outputs`: path -> md5 (dvc.lock);
    `verdict`: see tasks.domain.compare, empty unless Completed. `promotion`: what was decided about the new model (decision, version,
    reasons, and the path of the record; tasks.promotion.record), empty where nothing was.
    """

    flow_run: str
    schedule: str
    outcome: str = RUNNING
    message: str = ""
    scheduled: str = ""
    began: str = ""
    ended: str = ""
    stages: tuple[str, ...] = ()
    git: Mapping[str, object] = field(default_factory=dict)
    raw: dict[str, list[str]] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    verdict: Mapping[str, object] = field(default_factory=dict)
    promotion: Mapping[str, object] = field(default_factory=dict)
    host: str = field(default_factory=platform.node)
    pid: int = field(default_factory=os.getpid)

    def ended_as(self, outcome: str, message: str, **more: Any) -> "Record":
        return replace(self, outcome=outcome, message=message, ended=now(), **more)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_record(root: Path, record: Record) -> Path:
    folder = root / RECORDS
    folder.mkdir(parents=True, exist_ok=True)
    time = datetime.fromisoformat(record.began or record.scheduled).astimezone(UTC)
    # The time comes first, so that the names sort by it; the id keeps two schedules of one second apart.
    path = folder / f"{time:%Y%m%dT%H%M%SZ}-{record.flow_run}.json"
    write_text(path, json.dumps(asdict(record), indent=2) + "\n")
    return path


def read_records(root: Path) -> list[Record]:
    """Oldest first."""
    return [_read(path) for path in sorted((root / RECORDS).glob("*.json"))]


def last_completed(records: Iterable[Record]) -> Record | None:
    """The newest record, of any schedule, whose run completed; None if there is none."""
    completed = [record for record in records if record.outcome == "Completed"]
    return completed[-1] if completed else None


def close_unfinished(root: Path, except_run: str = "") -> list[Record]:
    """To be called with the run lock held, so that none is at work but the flow run `except_run`: the others died, and become Crashed."""
    closed = []
    for record in read_records(root):
        if record.outcome == RUNNING and record.flow_run != except_run:
            closed.append(crashed(record))
            write_record(root, closed[-1])
    return closed


def crashed(record: Record) -> Record:
    return record.ended_as("Crashed", f"its process (pid {record.pid} on {record.host}) died without a word")


def _read(path: Path) -> Record:
    try:
        values = json.loads(read_text(path, "it was there a moment ago"))
        return Record(**{**values, "stages": tuple(values["stages"])})
    except (ValueError, TypeError, KeyError) as error:
        raise ProjectError(f"{path}: no record of a scheduled run ({error}); remove the file") from None
