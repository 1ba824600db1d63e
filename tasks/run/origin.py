"""Where the outputs that dvc.lock records were made: on this machine, or elsewhere, as after a pull of someone's dvc.lock.

The lineage record of this checkout tells: an event of a run with exactly that entry of dvc.lock, on this host or on another one, such as
a node. An entry of which it has no such event came from outside, or from a plain `dvc repro`, which leaves no event.
"""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.dvc.lockfile import Entry
from tasks.ledger.events import entry_hash, recorded_entry
from tasks.ledger.lines import Event

KILLED = "a killed run"  # what tasks.run.interrupted records as the source of outputs that were made here after all
HERE, ELSEWHERE = "here", "elsewhere"


@dataclass(frozen=True)
class Origin:
    """`place`: HERE or ELSEWHERE. `host`: empty where no event tells, as are `seconds` and `peak_memory_mb` of that run (None)."""

    place: str
    host: str = ""
    seconds: float | None = None
    peak_memory_mb: int | None = None


def origins(lock: Mapping[str, Entry], events: Iterable[Event], host: str | None = None) -> dict[str, Origin]:
    """By stage in dvc.lock. `host`: this machine (None: its name). Where the same was made here and elsewhere, it was made here."""
    host = platform.node() if host is None else host
    stage_by_entry = {(name, entry_hash(entry)): name for name, entry in lock.items()}
    by_stage = {name: Origin(ELSEWHERE) for name in lock}
    for event in events:
        name = stage_by_entry.get((event["job"]["name"], recorded_entry(event)))
        facts = event["run"]["facets"].get("gr2_run") or {}
        if name is None or event.get("eventType") != "COMPLETE" or facts.get("restored") not in (None, KILLED):
            continue
        run_host = str(facts.get("host") or "")
        origin = Origin(HERE if run_host == host else ELSEWHERE, run_host, facts.get("seconds"), _whole(facts.get("peak_memory_mb")))
        if origin.place == HERE or by_stage[name].place != HERE:
            by_stage[name] = origin
    return by_stage


def _whole(value: object) -> int | None:
    """A number of the record that may be absent, or 0 where nothing was measured."""
    return int(value) if isinstance(value, int | float) and value else None
