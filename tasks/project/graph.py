"""The graph of stages as dvc.yaml describes it: what each needs, makes, and costs. Reading it does not load DVC."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tasks.project.shards import each, group_of
from tasks.project.templates import Templates
from tasks.system.errors import ProjectError, nearest
from tasks.system.yaml_files import parse, read_text

RESOURCES = ("cpus", "gpus", "memory_gb")
CODE_ROOMS = ("stages", "flows", "tasks", "infra")


@dataclass(frozen=True)
class Stage:
    name: str
    cmd: str
    deps: tuple[str, ...] = ()
    outs: tuple[str, ...] = ()  # outs, metrics and plots alike
    params: dict[str, tuple[str, ...]] = field(default_factory=dict)  # file -> keys; no keys = the whole file
    desc: str = ""
    cpus: int = 1
    gpus: int = 0
    memory_gb: float = 0.0
    nodes: int = 1
    dep_keys: dict[str, str] = field(default_factory=dict)  # dep whose path is a value of params.yaml -> the dotted key

    @property
    def metrics_file(self) -> str | None:
        return next((out for out in self.outs if Path(out).name == "metrics.json"), None)


class Graph:
    """Stages by name and the edges between them: an edge is a dep that is an out of another stage, or lies in one, or holds one.

    `declared`: the names of dvc.yaml as they stand there; those of `foreach` may have many stages (NAME@ITEM), or none.
    """

    def __init__(self, stages: Iterable[Stage], declared: Iterable[str] = ()):
        self.stages = {stage.name: stage for stage in stages}
        self.declared = {*declared} or {*self.stages}
        self._upstream = {name: self._producers(stage) for name, stage in self.stages.items()}
        try:
            self.order = list(TopologicalSorter(self._upstream).static_order())
        except CycleError as error:
            raise ProjectError(f"dvc.yaml: the stages need each other in a circle: {' -> '.join(error.args[1])}") from None

    def __getitem__(self, name: str) -> Stage:
        if name not in self.stages:
            raise ProjectError(f"unknown stage '{name}'{nearest(name, self.stages)} (stages: {', '.join(self.order)})")
        return self.stages[name]

    def upstream(self, name: str) -> list[str]:
        """The stages whose outputs `name` reads directly."""
        return self._upstream[self[name].name]

    def downstream(self, name: str) -> list[str]:
        """The stages that read the outputs of `name` directly."""
        return [other for other in self.order if self[name].name in self._upstream[other]]

    def closure(self, names: Iterable[str] | None = None) -> list[str]:
        """`names` and all they need, upstream first; the whole graph for None or no names."""
        needed, pending = set(), [self[name].name for name in names or self.order]
        while pending:
            name = pending.pop()
            if name not in needed:
                needed.add(name)
                pending += self._upstream[name]
        return [name for name in self.order if name in needed]

    def with_downstream(self, name: str) -> list[str]:
        """`name` and every stage that reads its outputs, directly or through others, upstream first."""
        affected = {self[name].name}
        for other in self.order:
            if affected.intersection(self._upstream[other]):
                affected.add(other)
        return [other for other in self.order if other in affected]

    def producer(self, path: str) -> Stage | None:
        """The stage that makes `path`, or the folder it lies in."""
        return next((stage for stage in self.stages.values() if any(holds(out, path) for out in stage.outs)), None)

    def makes(self, path: str) -> bool:
        """Whether stages make `path`, the folder it lies in, or what lies in it, as shards do."""
        return any(holds(out, path) or holds(path, out) for stage in self.stages.values() for out in stage.outs)

    def outs_of_dep(self, dep: str) -> list[str]:
        """What stages make of `dep`: itself, or the outs that lie in it, as those of shards; empty for code and raw data."""
        return [dep] if self.producer(dep) else [out for stage in self.stages.values() for out in stage.outs if holds(dep, out)]

    def _producers(self, stage: Stage) -> list[str]:
        def feeds(other: Stage) -> bool:
            return any(holds(out, dep) or holds(dep, out) for out in other.outs for dep in stage.deps)

        return [name for name, other in self.stages.items() if name != stage.name and feeds(other)]


def holds(folder: str, path: str) -> bool:
    """Whether `path` is `folder` or lies in it (both as dvc.yaml writes them)."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_code(path: str) -> bool:
    # By name alone: the dvc.lock of an old commit names files that are no longer on the disk.
    return path.endswith(".py") or path.split("/")[0] in CODE_ROOMS


def read_graph(root: Path, params: str | None = None) -> Graph:
    """The graph in `root`/dvc.yaml. ProjectError for a missing or malformed file, a cycle, or a `${section.key}` that params.yaml lacks.

    `params`: the text that params.yaml is about to have; None: the one it has.
    """
    text = read_text(root / "dvc.yaml", "run at the root of the project, where dvc.yaml stands")
    document = parse(text, "dvc.yaml")
    stages = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(stages, dict) or not stages:
        raise ProjectError("dvc.yaml: it describes no stages; it needs a mapping 'stages' of name to cmd, deps and outs")
    templates = Templates(root, params)
    written_out = [pair for name, entry in stages.items() for pair in each(str(name), entry, templates)]
    return Graph((_stage(name, entry, templates) for name, entry in written_out), map(str, stages))


def _stage(name: str, entry: object, templates: Templates) -> Stage:
    if not isinstance(entry, dict) or "cmd" not in entry:
        kind = "matrix stages are not supported; use foreach, or write each out" if isinstance(entry, dict) else "it is no mapping"
        raise ProjectError(f"dvc.yaml: stages.{name}: no 'cmd' ({kind})")
    # Where 0.1.0 had them. To pass over them would run every stage with the default resources, without a word.
    if "resources" in (entry.get("meta") or {}):
        raise ProjectError(
            f"dvc.yaml: stages.{name}.meta.resources: resources are read from params.yaml now; move them to resources.{name}"
        )
    cmd = entry["cmd"]
    outs = [path for key in ("outs", "metrics", "plots") for path in _paths(name, key, entry.get(key), templates)]
    needs = _resources(name, templates)
    return Stage(
        name=name,
        cmd=templates.filled(" && ".join(map(str, cmd)) if isinstance(cmd, list) else str(cmd), f"stages.{name}.cmd"),
        deps=tuple(dict.fromkeys(_paths(name, "deps", entry.get("deps"), templates))),  # a template may name one that stands there
        outs=tuple(dict.fromkeys(outs)),
        params=_params(name, entry.get("params")),
        desc=str(entry.get("desc") or ""),
        cpus=max(1, int(needs["cpus"])),  # one of 0 would take nothing of the machine, and all such stages would start at once
        gpus=int(needs["gpus"]),
        memory_gb=needs["memory_gb"],
        nodes=max(1, int(needs["nodes"])),
        dep_keys={templates.filled(text, ""): key for text in _texts(entry.get("deps")) for key in templates.keys(text)},
    )


def _resources(name: str, templates: Templates) -> dict[str, float]:
    """What the stage takes of a machine: params.yaml's `resources.<stage>`, and `<stage>.nodes` of its own section. Both may be absent.
    A shard takes what is written for all of its kind."""
    name = group_of(name)
    needs = {"cpus": 1.0, "gpus": 0.0, "memory_gb": 0.0, "nodes": 1.0}
    resources = templates.section("resources", name)
    if not isinstance(resources, dict):  # a stage that is not there takes one core
        raise ProjectError(f"params.yaml: resources.{name}: a mapping of {', '.join(RESOURCES)} is expected (got {resources!r})")
    for key in resources:
        if key not in RESOURCES:
            raise ProjectError(
                f"params.yaml: resources.{name}: unknown key '{key}'{nearest(key, RESOURCES)} (valid: {', '.join(RESOURCES)})"
            )
    section = templates.section(name)
    nodes = {"nodes": section["nodes"]} if isinstance(section, dict) and "nodes" in section else {}
    for key, value in (resources | nodes).items():
        if isinstance(value, bool) or not isinstance(value, int | float):  # True is an int in Python; `gpus: true` is a mistake
            place = f"{name}.nodes" if key == "nodes" else f"resources.{name}.{key}"
            raise ProjectError(f"params.yaml: {place}: a number is expected (got {value!r})")
        needs[key] = float(value)
    return needs


def _paths(stage: str, key: str, entries: object, templates: Templates) -> list[str]:
    """Paths of a list whose entries are `path` or `path: {options}`."""
    entries = entries or []
    if not isinstance(entries, list):
        raise ProjectError(f"dvc.yaml: stages.{stage}.{key}: a list of paths is expected (got {type(entries).__name__})")
    return [templates.filled(text, f"stages.{stage}.{key}") for text in _texts(entries)]


def _texts(entries: list[object] | None) -> list[str]:
    return [str(next(iter(entry)) if isinstance(entry, dict) else entry) for entry in entries or []]


def _params(stage: str, entries: object) -> dict[str, tuple[str, ...]]:
    params: dict[str, tuple[str, ...]] = {}
    entries = entries or []
    if not isinstance(entries, list):
        raise ProjectError(f"dvc.yaml: stages.{stage}.params: a list of keys is expected (got {type(entries).__name__})")
    for entry in entries:
        for file, keys in entry.items() if isinstance(entry, dict) else [("params.yaml", [entry])]:
            params[file] = (*params.get(file, ()), *map(str, keys or []))
    return params
