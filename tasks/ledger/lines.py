"""The lines of the lineage record: their form, their place in the chain, and reading them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeGuard, cast

from tasks.ledger.event_types import ChainFacet
from tasks.ledger.event_types import Event as Event

FOLDER = Path(".gr2") / "lineage"
EVENTS, HEAD, TRUNCATED = FOLDER / "events.jsonl", FOLDER / "head.json", FOLDER / "events.jsonl.truncated"
CHAIN = "gr2_chain"


@dataclass(frozen=True)
class Head:
    """The last event: its line from 0 (-1: none), its hash, and the length of the file up to its end."""

    index: int
    hash: str
    bytes: int

    @property
    def text(self) -> str:
        return canonical(asdict(self)) + "\n"

    @classmethod
    def parse(cls, text: str) -> "Head | None":
        """None for what is no head, byte for byte as `text` writes it."""
        try:
            head = cls(**json.loads(text))
        except (ValueError, TypeError):
            return None
        # Another spelling of equal values is an edit: the file is written by `text` alone.
        return head if head.text == text and isinstance(head.index, int) and isinstance(head.bytes, int) else None


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def chain_hash(event: Mapping[str, object]) -> str:
    """sha256 of the canonical event, its gr2_chain without `hash`; `event` has a gr2_chain."""
    run = cast(Event, event)["run"]
    # `hash` is the result, so it cannot be part of what is hashed.
    link = {key: value for key, value in run["facets"]["gr2_chain"].items() if key != "hash"}
    facets: dict[str, object] = {**run["facets"], CHAIN: link}
    return hashlib.sha256(canonical({**event, "run": {**run, "facets": facets}}).encode()).hexdigest()


def read_head(root: Path) -> Head | None:
    """What head.json says; None where it is missing or not as it was written."""
    return Head.parse((root / HEAD).read_bytes().decode("utf-8", "replace")) if (root / HEAD).exists() else None


def read_events(root: Path) -> list[Event]:
    """Every event, oldest first. What is none (a line cut off by a crash) is passed over; `gr2 lineage --verify` names it."""
    lines = (root / EVENTS).read_bytes().split(b"\n") if (root / EVENTS).exists() else []
    # Reading must not fail on a broken line, or `gr2 status` would stop working on the day it is needed.
    return [event for event in map(parse_line, lines) if is_event(event)]


def first_hash(root: Path) -> str:
    """The hash of the first chained line, which says which record it is; empty without one."""
    return next((str(link["hash"]) for event in read_events(root) if (link := chain_link(event)) and "hash" in link), "")


def parse_line(line: bytes) -> dict[str, object] | None:
    """The JSON object in a line; None where it holds none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def is_event(event: Mapping[str, object] | None) -> TypeGuard[Event]:
    """Whether it has what every event of a run has."""
    run, job = (event or {}).get("run"), (event or {}).get("job")
    return (
        isinstance(run, dict)
        and "runId" in run
        and isinstance(run.setdefault("facets", {}), dict)
        and isinstance(job, dict)
        and "name" in job
    )


def chain_link(event: Mapping[str, object] | None) -> ChainFacet | None:
    """Its gr2_chain; None where it has none."""
    run = event.get("run") if event else None
    facets = run.get("facets") if isinstance(run, dict) else None
    link = facets.get(CHAIN) if isinstance(facets, dict) else None
    return cast(ChainFacet, link) if isinstance(link, dict) else None


def head_of(line: bytes, size: int) -> Head | None:
    """The head that the file's last line is; None for a line that is not chained, or not as it was written."""
    event = parse_line(line)
    link = chain_link(event)
    if event is None or link is None or canonical(event).encode() != line.rstrip(b"\n"):
        return None
    is_intact = isinstance(link.get("index"), int) and chain_hash(event) == link.get("hash")
    return Head(link["index"], link["hash"], size) if is_intact else None
