"""What differs between two checkpoints, or two runs, and only that: parameters by key, code files, data, raw files, environment."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.lineage.index import Index
from tasks.lineage.resolve import Resolved, find
from tasks.lineage.versions import Version
from tasks.project.dict_diff import MISSING, differences
from tasks.project.graph import Graph

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Difference:
    """`kind`: stage, command, param, code, data, raw, environment or hardware. `a`, `b`: null on the side that lacks it."""

    stage: str
    kind: str
    key: str
    a: object
    b: object
    why: str = ""

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def compare(index: Index, graph: Graph, first: str, second: str, cwd: Path) -> list[Difference]:
    """The differences by stage, upstream first. A `data` input names the upstream stage that changed it, if one did."""
    a, b = (_stages(index, find(index, graph, query, cwd)) for query in (first, second))
    rows: list[Difference] = []
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            rows.append(Difference(name, "stage", name, _presence(a, name), _presence(b, name)))
        # The index has one object a version, so equal work is the same object.
        elif a[name] is not b[name]:
            rows += _between(index, a[name], b[name], {row.stage for row in rows})
    return rows


def _presence(side: dict[str, Version], name: str) -> str | None:
    return "present" if name in side else None


def _stages(index: Index, resolved: Resolved) -> dict[str, Version]:
    """The versions behind `resolved` by stage name, upstream first."""
    return {version.stage: version for version in reversed(index.upstream_versions(resolved.makers))}


def _between(index: Index, a: Version, b: Version, changed: set[str]) -> Iterator[Difference]:
    name = a.stage
    if a.command != b.command:
        yield Difference(name, "command", "cmd", a.command, b.command)
    for key, old, new in differences(a.flat_params, b.flat_params):
        yield Difference(name, "param", key, _or_none(old), _or_none(new))
    has_files = set(a.packages) & set(b.packages) == set(a.packages) | set(b.packages)  # else one side has files, the other the package
    codes = (a.code_files, b.code_files) if has_files else (dict(a.code), dict(b.code))
    for key, old, new in differences(*codes):
        yield Difference(name, "code", key, _or_none(old), _or_none(new))
    makers = {path: maker.stage for version in (a, b) for (path, _), maker in index.producers(version)}
    for path in dict.fromkeys([*a.inputs, *b.inputs]):
        old, new = (side.inputs[path]["hash"] if path in side.inputs else None for side in (a, b))
        if old != new:
            source = next(
                (stage for out, stage in makers.items() if path == out or path.startswith(out + "/") or out.startswith(path + "/")), ""
            )
            yield Difference(name, "data", path, old, new, f"from {source}, which differs" if source in changed else "")
    yield from _raw(index, a, b)
    yield from _machine(a, b)


def _raw(index: Index, a: Version, b: Version) -> Iterator[Difference]:
    old, new = ({key: (index.raw(side) or {}).get(key) for key in ("name", "sha256", "rows")} for side in (a, b))
    for key, before, after in differences(old, new):
        yield Difference(a.stage, "raw", key, before, after)


def _machine(a: Version, b: Version) -> Iterator[Difference]:
    """Of the newest runs; a version that only dvc.lock knows has none."""
    old, new = (side.runs[-1] if side.runs else {} for side in (a, b))
    for kind in ("environment", "hardware"):
        before, after = old.get(kind) or {}, new.get(kind) or {}
        if bool(before) != bool(after):
            yield Difference(a.stage, kind, kind, before or NOT_RECORDED, after or NOT_RECORDED)
        else:
            for key, old_value, new_value in differences(before, after):
                yield Difference(a.stage, kind, key, _or_none(old_value), _or_none(new_value))


def _or_none(value: object) -> object:
    return None if value is MISSING else value
