"""One version of a stage: what a run of it read and wrote, by content, whoever recorded it (dvc.lock, a commit's dvc.lock, an event)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypedDict, cast

from tasks.dvc.dir_listing import Listing
from tasks.dvc.lockfile import Content, Entry, locked_hashes
from tasks.ledger.facets import NAMESPACE
from tasks.ledger.lines import Event, canonical
from tasks.project.graph import is_code

Hashes = dict[str, Content]  # by path


class RawFileFacts(TypedDict, total=False):
    sha256: str
    bytes: int


class RawData(RawFileFacts, total=False):
    """The raw files that a stage read, as its metrics.json names them. `name`, `sha256`, `bytes`, `rows` of the first; `files`: by name."""

    name: str
    source: str  # the data set and its publisher, in words
    rows: int
    files: dict[str, RawFileFacts]


class RunFacts(TypedDict, total=False):
    """What varies from run to run; old events lack some. `time`: ISO 8601; `environment`, `hardware`: see tasks.ledger.events."""

    time: str
    revision: str | None
    dirty: bool | None
    host: str
    seconds: float
    pool: str
    restored: str
    experiment: str
    flow_run: str
    environment: dict[str, Any]
    hardware: dict[str, Any]


@dataclass
class Version:
    """`params`: file -> values. `refs`: where its dvc.lock entry stands now ("workspace", branches, tags); `commits`: those that hold it.

    `runs`: facts of the runs that made or restored it, oldest first. `listings`: of the folders it
    read or wrote, where an event has them.
    """

    stage: str
    command: str
    code: dict[str, str]
    params: dict[str, object]
    inputs: Hashes
    outputs: Hashes
    refs: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=list)
    runs: list[RunFacts] = field(default_factory=list)
    latest: int = -1  # place in the record of the newest of them: times are not to be trusted, clocks are set
    metrics: dict[str, object] = field(default_factory=dict)
    listings: dict[str, Listing] = field(default_factory=dict)
    packages: dict[str, Listing] = field(default_factory=dict)  # files of the code packages in `code`, where an event has them

    @cached_property
    def key(self) -> str:
        """The same for the same work, recorded anywhere. OpenLineage drops nulls, and old events have no sizes."""
        # Without sizes and times: two records of equal work have to give one key.
        hashes = [{path: entry["hash"] for path, entry in each.items()} for each in (self.inputs, self.outputs)]
        return canonical([self.stage, self.command, self.code, without_nulls(self.params), *hashes])

    @property
    def code_files(self) -> dict[str, str]:
        """md5 by path: `code`, with each package replaced by its files where these are known."""
        files: dict[str, str] = {}
        for path, md5 in self.code.items():
            files |= {f"{path}/{name}": hash_ for name, hash_ in self.packages[path].items()} if path in self.packages else {path: md5}
        return files

    @property
    def raw(self) -> RawData | None:
        raw = self.metrics.get("raw")
        return cast(RawData, raw) if isinstance(raw, dict) and raw.get("sha256") else None

    @property
    def flat_params(self) -> dict[str, object]:
        """The parameters of every file; keys of another file than params.yaml carry its name."""
        merged: dict[str, object] = {}
        for file, values in self.params.items():
            keys = values if isinstance(values, dict) else {"": values}
            merged.update(keys if file == "params.yaml" else {f"{file}:{key}": value for key, value in keys.items()})
        return merged


def malformed(entry: object) -> str:
    """Why an entry of a dvc.lock is not valid; empty for a valid one."""
    if not isinstance(entry, dict):
        return "it is no mapping"
    for key in ("deps", "outs"):
        rows = entry.get(key) or []
        if not isinstance(rows, list):
            return f"its {key} are no list"
        for row in rows:
            if not isinstance(row, dict) or not isinstance(row.get("path"), str) or not isinstance(row.get("md5", ""), str):
                return f"one of its {key} has no path, or an md5 that is no text"
    params = entry.get("params") or {}
    return "" if isinstance(params, dict) and all(isinstance(values, dict) for values in params.values()) else "its params are no mapping"


def of_entry(stage: str, entry: Entry) -> Version:
    """Of a stage's entry in a dvc.lock."""
    deps = locked_hashes(entry.get("deps"))
    cmd = entry.get("cmd") or ""
    return Version(
        stage=stage,
        command=" && ".join(map(str, cmd)) if isinstance(cmd, list) else str(cmd),
        code={path: dep["hash"] for path, dep in deps.items() if is_code(path)},
        params=dict(entry.get("params") or {}),
        inputs={path: dep for path, dep in deps.items() if not is_code(path)},
        outputs=locked_hashes(entry.get("outs")),
    )


def of_event(event: Event) -> Version | None:
    """Of the COMPLETE event of a stage; None for any other."""
    facets, outputs = event["run"]["facets"], _datasets(event.get("outputs"), "outputFacets", "outputStatistics")
    if event.get("eventType") != "COMPLETE" or not outputs:
        return None
    metrics = _values(facets, "gr2_metrics", "values")
    return Version(
        stage=str(event["job"]["name"]),
        command=str(_values(facets, "gr2_run").get("command", "")),
        code=_values(facets, "gr2_code", "files"),
        params=_values(facets, "gr2_params", "values"),
        inputs=_datasets(event.get("inputs"), "inputFacets", "inputStatistics"),
        outputs=outputs,
        runs=[run_facts(event)],
        metrics=metrics,
        packages=_values(facets, "gr2_code", "packages"),
        listings={
            path: {str(row[0]): str(row[1]) for row in entry["facets"]["gr2_members"].get("files") or []}
            for path, entry in ((entry["name"], entry) for entry in [*(event.get("inputs") or []), *event["outputs"]])
            if "gr2_members" in entry.get("facets", {})
        },
    )


FACTS = ("revision", "dirty", "host", "seconds", "pool", "restored", "experiment")  # some events lack some


def run_facts(event: Event) -> RunFacts:
    """Time, FACTS; and environment and hardware, empty in old events."""
    facets = event["run"]["facets"]
    facts = _values(facets, "gr2_run")
    present_facts = cast(RunFacts, {key: facts.get(key) for key in FACTS if key in facts})
    return {
        "time": event.get("eventTime", ""),
        **present_facts,
        "environment": _values(facets, "gr2_environment"),
        "hardware": _values(facets, "gr2_hardware"),
        "flow_run": _values(facets, "gr2_prefect").get("flow_run", ""),
    }


def without_nulls(value: object) -> object:
    """As openlineage-python's serialiser leaves it: no nulls in mappings and lists, no empty mappings in lists."""
    if isinstance(value, dict):
        return {str(key): without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [member for member in map(without_nulls, value) if member is not None and member != {}]
    return value


def _datasets(entries: Any, kind: str, statistics: str) -> Hashes:
    """path -> {"hash", "size"} of the project's own datasets of an event."""
    contents: Hashes = {}
    for entry in entries or []:
        if entry.get("namespace", NAMESPACE) == NAMESPACE:
            version = str(((entry.get("facets") or {}).get("version") or {}).get("datasetVersion", ""))
            size = ((entry.get(kind) or {}).get(statistics) or {}).get("size")
            contents[str(entry["name"])] = {"hash": version.removeprefix("md5:"), "size": size}
    return contents


def _values(facets: Mapping[str, object], name: str, key: str | None = None) -> dict[str, Any]:
    facet = facets.get(name)
    values = facet.get(key) if isinstance(facet, dict) and key else facet
    fields = values if isinstance(values, dict) else {}
    return {name: value for name, value in fields.items() if name not in ("_producer", "_schemaURL")}
