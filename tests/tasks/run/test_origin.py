"""Where what dvc.lock records was made, from the events of the record."""

from typing import Any

from tasks.ledger.events import entry_hash
from tasks.run.origin import Origin, origins

LOCK: dict[str, Any] = {"a": {"cmd": "x", "outs": [{"path": "data/a", "md5": "1"}]}, "b": {"cmd": "y"}}


def event(name: str, entry: dict[str, Any], kind: str = "COMPLETE", **facts: object) -> dict[str, Any]:
    facets = {"gr2_lock": {"entry": entry_hash(entry)}, "gr2_run": {"host": "laptop", **facts}}
    return {"eventType": kind, "job": {"name": name}, "run": {"facets": facets}}


def test_here_elsewhere_and_unknown() -> None:
    ran = event("a", LOCK["a"], seconds=3.5, peak_memory_mb=200)
    restored = event("a", LOCK["a"], restored="remote")
    assert origins(LOCK, [ran, restored], "laptop") == {"a": Origin("here", "laptop", 3.5, 200), "b": Origin("elsewhere")}
    assert origins(LOCK, [ran], "server")["a"] == Origin("elsewhere", "laptop", 3.5, 200)
    assert origins(LOCK, [restored], "laptop")["a"] == Origin("elsewhere"), "nothing ran"
    assert origins(LOCK, [event("a", LOCK["a"], restored="a killed run")], "laptop")["a"].place == "here"
    assert origins(LOCK, [event("a", LOCK["a"], "FAIL")], "laptop")["a"] == Origin("elsewhere")
    assert origins(LOCK, [event("a", {**LOCK["a"], "cmd": "z"})], "laptop")["a"] == Origin("elsewhere"), "another entry"
    assert origins(LOCK, [event("b", LOCK["a"])], "laptop")["b"] == Origin("elsewhere"), "another stage"


def test_here_wins_over_a_node_that_made_the_same() -> None:
    events = [event("a", LOCK["a"], seconds=9.0), event("a", LOCK["a"], host="gpu1", seconds=1.0)]
    assert origins(LOCK, events, "laptop")["a"] == Origin("here", "laptop", 9.0)
    assert origins(LOCK, events, "gpu1")["a"] == Origin("here", "gpu1", 1.0)
