"""What was decided about a candidate, why, and on what: a JSON file each in .gr2/promotions, and the page beside it (flows/render)."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.run.history import now
from tasks.system.errors import ProjectError
from tasks.system.git import git_or_none
from tasks.system.yaml_files import read_text, write_text

DECISIONS = Path(".gr2") / "promotions"
PROMOTED, PROPOSED, REFUSED, OVERTAKEN, ROLLED_BACK = "promoted", "proposed", "refused", "overtaken", "rolled back"


@dataclass(frozen=True)
class DecisionRecord:
    """decision: a word of those above. version: of the artifact, where one is in use by this decision; tags: those it added.

    by: person, and for a scheduled run schedule and flow_run. candidate, champion: name, commit, version, and `outputs`, path -> md5 of
    what was read of them; champion None where there was none. reasons: a sentence each, of what was missing for a promotion, or spoke for
    it. checks: see stages.promote.checks; params: the gates. time: ISO 8601 in UTC.
    """

    decision: str
    artifact: str
    model: str
    by: Mapping[str, str]
    candidate: Mapping[str, object]
    champion: Mapping[str, object] | None
    reasons: Sequence[str]
    checks: Sequence[Mapping[str, Any]] = field(default_factory=list)
    params: Mapping[str, object] = field(default_factory=dict)
    version: str = ""
    tags: Sequence[str] = field(default_factory=list)
    time: str = field(default_factory=now)

    @property
    def headline(self) -> str:
        """reranker v0.0.2 promoted over v0.0.1"""
        champion = self.champion["version"] if self.champion else "the initial ranking"
        over = f" over {champion}" if self.decision == PROMOTED else ""
        return f"{f'{self.artifact} {self.version}'.strip()} {self.decision}{over}"

    @property
    def sentence(self) -> str:
        return f"{self.headline}: {'; '.join(self.reasons)}"


def who(root: Path, **more: str) -> dict[str, str]:
    """`by` of a record: the person as git knows them, or else the machine's user."""
    name, address = (git_or_none(root, "config", f"user.{key}") or "" for key in ("name", "email"))
    person = f"{name} <{address}>" if name and address else name or os.environ.get("USER") or f"user {os.getuid()}"
    return {"person": person, **{key: value for key, value in more.items() if value}}


def write_decision(root: Path, record: DecisionRecord) -> Path:
    """-> the path of the JSON file."""
    folder = root / DECISIONS
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{record.time.replace('-', '').replace(':', '').partition('+')[0]}Z-{record.decision.replace(' ', '-')}"
    # Two of one second, or of two processes: each keeps its file.
    path = next(path for path in (folder / f"{stem}{suffix}.json" for suffix in ("", *(f"-{n}" for n in range(2, 1000)))) if _claim(path))
    write_text(path, json.dumps(asdict(record), indent=2) + "\n")
    return path


def read_decisions(root: Path) -> list[tuple[Path, DecisionRecord]]:
    """Oldest first."""
    decisions = [(path, _read(path)) for path in (root / DECISIONS).glob("*.json") if path.stat().st_size]
    return sorted(decisions, key=lambda decision: (decision[1].time, len(decision[0].name), decision[0].name))


def _claim(path: Path) -> bool:
    try:
        path.open("x").close()
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> DecisionRecord:
    try:
        return DecisionRecord(**json.loads(read_text(path, "it was there a moment ago")))
    except (ValueError, TypeError) as error:
        raise ProjectError(f"{path}: no record of a decision ({error}); remove the file") from None
