"""What would run and why, running nothing: DVC says which stages changed, dvc.lock says from what to what."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.dvc.lockfile import locked_hashes, read_lock
from tasks.dvc.repo import open_repo
from tasks.project.dict_diff import MISSING, differences, format_value, value_at
from tasks.project.graph import Graph, Stage, is_code
from tasks.run.changed_files import ChangedFiles
from tasks.system.yaml_files import parse, read_text

PARAMS = "params.yaml"


@dataclass(frozen=True)
class Cause:
    """Why a stage is not current. `kind`: param, code, data, output, command, new, upstream, forced, or running (elsewhere)."""

    kind: str
    path: str
    detail: str
    key: str = ""

    def __str__(self) -> str:
        return {
            "param": f"{self.key}: {self.detail}" if self.path == PARAMS else f"{self.path}: {self.key}: {self.detail}",
            "code": f"code {self.path} {self.detail}",
            "data": f"data {self.path} {self.detail}",
            "output": f"output {self.path} {self.detail}",
            "upstream": f"because {self.key} will run",
        }.get(self.kind, self.detail)


@dataclass(frozen=True)
class StagePlan:
    """`action` is run or cached. A cached stage may have output causes: they will be restored from the cache."""

    name: str
    action: str
    causes: tuple[Cause, ...] = ()

    @property
    def current(self) -> bool:
        return self.action == "cached" and not self.causes


@dataclass(frozen=True)
class Plan:
    stages: tuple[StagePlan, ...]

    def __getitem__(self, name: str) -> StagePlan:
        return next(stage for stage in self.stages if stage.name == name)

    def to_dict(self) -> dict[str, object]:
        return {"stages": [asdict(stage) for stage in self.stages]}


def make_plan(
    root: Path,
    graph: Graph,
    names: Iterable[str] | None = None,
    force: Iterable[str] | None = None,
    params: dict[str, object] | None = None,
) -> Plan:
    """The plan for `names`, upstream first (tasks.run.selection; None: all). A stage behind one that runs may yet end Cached.

    `force`: stages that run in any case. `params`: what params.yaml would hold, for a plan of a run that would first change it; `graph` is
    then the one under these.
    """
    planner = _Planner(root, graph, frozenset(graph[name].name for name in force or ()), params)
    with open_repo(root) as repo:
        by_name = {stage.name: stage for stage in repo.index.stages if getattr(stage, "name", None)}
        changed_files = ChangedFiles(root, repo)
        for name in graph.order if names is None else names:
            planner.plans[name] = planner.plan(graph[name], by_name[name], changed_files)
    return Plan(tuple(planner.plans.values()))


class _Planner:
    """Plans stage after stage, upstream first; `plans` holds those done."""

    def __init__(self, root: Path, graph: Graph, forced: frozenset[str], params: dict[str, object] | None):
        self.root, self.graph, self.lock, self.forced, self.params = root, graph, read_lock(root), forced, params
        self.plans: dict[str, StagePlan] = {}

    def plan(self, stage: Stage, dvc_stage: Any, changed_files: ChangedFiles) -> StagePlan:
        from tasks.dvc.internals import LockError  # DVC is loaded by now

        running = [name for name in self.graph.upstream(stage.name) if name in self.plans and self.plans[name].action == "run"]
        upstream = tuple(Cause("upstream", "", "will run", name) for name in running)
        if stage.name not in self.lock:
            return StagePlan(stage.name, "run", (Cause("new", "dvc.lock", "it has never run"), *upstream))
        try:
            # DVC refuses to look at files that a stage at work elsewhere has locked.
            status = dvc_stage.status().get(stage.name, [])
        except LockError as error:
            busy = Cause("running", "", f"another process is at it: {str(error).splitlines()[0]}")
            return StagePlan(stage.name, "run", (busy, *upstream))
        forced = (Cause("forced", "", "it is forced"),) if stage.name in self.forced else ()
        # Under the names that its status has. A path is never a dep and an output of one stage.
        datasets = {str(dataset): dataset for dataset in (*dvc_stage.deps, *dvc_stage.outs)}
        causes = (*forced, *self._causes(stage, status, datasets, changed_files))
        # Only outputs differ, and the cache has the recorded ones: DVC checks them out instead of running the stage.
        if causes and not upstream and all(cause.kind == "output" for cause in causes) and dvc_stage.outs_cached():
            note = "its recorded version comes back from the cache"
            return StagePlan(stage.name, "cached", tuple(Cause("output", cause.path, f"{cause.detail}; {note}") for cause in causes))
        return StagePlan(stage.name, "run" if causes or upstream else "cached", (*causes, *upstream))

    def _causes(self, stage: Stage, status: list[Any], datasets: dict[str, Any], changed_files: ChangedFiles) -> Iterator[Cause]:
        """DVC's status of one stage in our words."""
        recorded = self.lock[stage.name]
        locked_deps, locked_outs = locked_hashes(recorded.get("deps")), locked_hashes(recorded.get("outs"))
        deps: dict[str, str] = {}
        for entry in status:
            if entry == "changed command":
                pass  # compared below: DVC fills it in from the file as it is now
            elif entry == "always changed":
                yield Cause("command", "dvc.yaml", "it has no deps, so DVC runs it every time")
            elif "changed outs" in entry:
                for path, change in entry["changed outs"].items():
                    is_edit = change == "modified" and path in locked_outs
                    edits = changed_files.of(stage.name, datasets[path], locked_outs[path]["hash"]) if is_edit else None
                    yield from (Cause("output", file, detail) for file, detail in edits or [(path, _word(change))])
            else:
                deps |= entry["changed deps"]
        if stage.cmd != _join(recorded.get("cmd")):
            yield Cause("command", "dvc.yaml", f"command changed: {_join(recorded.get('cmd'))} -> {stage.cmd}")
        if self.params is not None and PARAMS in stage.params:
            deps.setdefault(PARAMS, "modified")  # DVC has looked at the file as it is now, and at the deps that it names now
            deps = {path: change for path, change in deps.items() if path in stage.params or path in stage.deps}
            deps |= {path: "new" for path in stage.dep_keys if path not in locked_deps}
        for path, change in deps.items():
            if path in stage.params:
                current = self.params if path == PARAMS and self.params is not None else _values(self.root, path)
                yield from _param_causes(path, stage.params[path], (recorded.get("params") or {}).get(path) or {}, current)
            elif path not in locked_deps:
                if is_code(path) or not self._explained_upstream(path, stage.name):
                    yield Cause("code" if is_code(path) else "data", path, "is new among its deps")
            elif is_code(path) or not self._explained_upstream(path, stage.name):
                changes = changed_files.of(stage.name, datasets[path], locked_deps[path]["hash"]) if change == "modified" else None
                for file, detail in changes or [(path, _word(change))]:
                    yield Cause("code" if is_code(path) else "data", file, detail)

    def _explained_upstream(self, path: str, name: str) -> bool:
        """Whether a changed data dep follows from its producer, which will run or be restored to the version recorded for this dep."""
        producer = self.graph.producer(path)
        if producer is None or producer.name not in self.plans:
            return False
        plan = self.plans[producer.name]
        if plan.action == "run":
            return True
        outputs, inputs = locked_hashes(self.lock[producer.name].get("outs")), locked_hashes(self.lock[name].get("deps"))
        return bool(plan.causes) and path in outputs and path in inputs and outputs[path]["hash"] == inputs[path]["hash"]


def _param_causes(file: str, keys: tuple[str, ...], recorded: dict[str, object], current: object) -> Iterator[Cause]:
    """One cause a changed key, dotted down to the leaf."""
    for key in keys or sorted({*recorded, *(current if isinstance(current, dict) else {})}):
        for leaf, old, new in differences(recorded.get(key, MISSING), value_at(current, key), key):
            yield Cause("param", file, f"{format_value(old)} -> {format_value(new)}", leaf)


def _values(root: Path, file: str) -> object:
    return parse(read_text(root / file, ""), file) if (root / file).exists() else {}


def _word(change: str) -> str:
    return {"deleted": "is missing", "new": "is new"}.get(change, change)


def _join(cmd: object) -> str:
    return " && ".join(cmd) if isinstance(cmd, list) else str(cmd)
