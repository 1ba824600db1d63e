"""Where stages run: infra/placements/NAME.yaml maps what a stage needs (`resources` of params.yaml) to a Prefect work pool, or to here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from tasks.project.graph import Graph, Stage
from tasks.project.shards import group_of
from tasks.run.retries import Retries
from tasks.system.errors import ProjectError, nearest
from tasks.system.yaml_files import parse, read_text

PLACEMENTS = Path("infra") / "placements"
T = TypeVar("T")
HERE = "here"
TYPES = ("process", "kubernetes")


@dataclass(frozen=True)
class Pool:
    """A Prefect work pool. `gpus`: slots of all its machines together. `template`: base job template, a JSON file of the project."""

    name: str
    type: str = "process"
    gpus: int = 0
    template: str = ""
    job_variables: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """Stages that it names (none: any) and that need at least this much go to `pool`."""

    pool: str
    stages: tuple[str, ...] = ()
    min_gpus: int = 0
    min_nodes: int = 0
    min_cpus: int = 0
    min_memory_gb: float = 0

    def fits(self, stage: Stage) -> bool:
        enough = stage.gpus >= self.min_gpus and stage.nodes >= self.min_nodes and stage.cpus >= self.min_cpus
        is_named = stage.name in self.stages or group_of(stage.name) in self.stages  # embed_shard: all of them
        return enough and stage.memory_gb >= self.min_memory_gb and (not self.stages or is_named)


@dataclass(frozen=True)
class Placement:
    """`git_remote`: where the code of a run is pushed for the nodes (empty: they fetch it from this checkout). `lease_s`: a node not heard
    of for so long is lost. `pending_s`: how long a node may take from taking a stage to its first word (pulling an image)."""

    name: str = HERE
    git_remote: str = "origin"
    lease_s: float = 60.0
    pending_s: float = 900.0
    retries: Retries = field(default_factory=Retries)
    pools: dict[str, Pool] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()

    def pool(self, stage: Stage) -> Pool | None:
        """The pool of the first rule that fits; None: it runs on this machine. ProjectError when nothing can run it."""
        rule = next((rule for rule in self.rules if rule.fits(stage)), None)
        if rule is None or rule.pool == HERE:
            if stage.nodes > 1:
                raise ProjectError(
                    f"'{stage.name}' wants {stage.nodes} nodes, and {self._description()} runs it on this machine alone; "
                    f"set its nodes to 1 in params.yaml, or give it a pool: gr2 run --placement NAME"
                )
            return None
        pool = self.pools[rule.pool]
        # Now, not when its turn comes: the limit on the server never grants more than it counts.
        if pool.gpus and stage.gpus * stage.nodes > pool.gpus:
            request = f"{stage.gpus * stage.nodes} GPUs ({stage.gpus} on each of {stage.nodes} nodes)"
            raise ProjectError(f"'{stage.name}' wants {request}; the pool '{pool.name}' of {self._description()} has {pool.gpus}")
        return pool

    def check(self, graph: Graph) -> None:
        for name in graph.order:
            self.pool(graph[name])

    def _description(self) -> str:
        return f"the placement '{self.name}'" if self.name != HERE else "a run without --placement"


def placement_names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / PLACEMENTS).glob("*.yaml"))


def read_placement(root: Path, name: str | None) -> Placement:
    """The placement `name`; None: everything here. ProjectError naming the file and the key for what it cannot mean."""
    if not name:
        return Placement()
    if name not in placement_names(root):
        raise ProjectError(
            f"unknown placement '{name}'{nearest(name, placement_names(root))} (placements: {', '.join(placement_names(root)) or 'none'})"
        )
    file = f"{PLACEMENTS / name}.yaml"
    document = _mapping(parse(read_text(root / file, ""), file) or {}, file, "")
    pools = {
        key: _build(Pool, {**_mapping(value or {}, file, f"pools.{key}"), "name": key}, file, f"pools.{key}")
        for key, value in _mapping(document.pop("pools", {}), file, "pools").items()
    }
    for pool in pools.values():
        _check_pool(root, pool, file)
    rules = tuple(
        _rule(entry, pools, file, f"rules[{place}]") for place, entry in enumerate(_list(document.pop("rules", None), file, "rules"))
    )
    retries = _build(Retries, _mapping(document.pop("retries", {}), file, "retries"), file, "retries")
    placement = _build(Placement, {**document, "name": name, "pools": pools, "rules": rules, "retries": retries}, file, "")
    return placement


def _check_pool(root: Path, pool: Pool, file: str) -> None:
    if pool.name == HERE:
        raise ProjectError(f"{file}: pools.{HERE}: this name means the orchestrator's own machine; choose another")
    if pool.type not in TYPES:
        raise ProjectError(f"{file}: pools.{pool.name}.type: {pool.type!r}{nearest(str(pool.type), TYPES)} (valid: {', '.join(TYPES)})")
    if pool.template and not (root / pool.template).is_file():
        raise ProjectError(f"{file}: pools.{pool.name}.template: {pool.template}: no such file")
    # Prefect's own job template has no volume for the DVC cache and asks for no GPU.
    if pool.type == "kubernetes" and not pool.template:
        raise ProjectError(f"{file}: pools.{pool.name}: a Kubernetes pool needs template, e.g. infra/kubernetes/base-job-template.json")


def _rule(entry: object, pools: dict[str, Pool], file: str, place: str) -> Rule:
    values = _mapping(entry, file, place)
    rule = _build(Rule, {**values, "stages": tuple(map(str, _list(values.get("stages"), file, f"{place}.stages")))}, file, place)
    if rule.pool != HERE and rule.pool not in pools:
        raise ProjectError(
            f"{file}: {place}.pool: there is no pool '{rule.pool}'{nearest(rule.pool, pools)} (pools: {', '.join([*pools, HERE])})"
        )
    return rule


def _mapping(value: object, file: str, key: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ProjectError(f"{file}: {key or 'it'}: a mapping is expected (got {type(value).__name__})")
    return dict(value)


def _list(value: object, file: str, key: str) -> list[object]:
    """Empty for a key that is absent or has no value."""
    if not isinstance(value or [], list):
        raise ProjectError(f"{file}: {key}: a list is expected (got {type(value).__name__})")
    return list(value) if isinstance(value, list) else []


def _build(kind: Callable[..., T], values: Mapping[str, object], file: str, place: str) -> T:
    """A `kind` with `values`; every key must be one of its fields, of the type of that field's default."""
    valid_fields = {entry.name: entry for entry in fields(cast(Any, kind))}  # a dataclass, which no type of `typing` says
    for key, value in values.items():
        name = f"{place}.{key}" if place else key
        if key not in valid_fields:
            raise ProjectError(f"{file}: {name}: unknown key{nearest(str(key), valid_fields)} (valid: {', '.join(valid_fields)})")
        if valid_fields[key].type in (int, float) and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise ProjectError(f"{file}: {name}: a number, 0 or more, is expected (got {value!r})")
        if valid_fields[key].type is str and not isinstance(value, str):
            raise ProjectError(f"{file}: {name}: a text is expected (got {value!r})")
    try:
        return kind(**values)
    except TypeError:  # unknown keys are refused above, so it lacks the one field that has no default
        missing = "pool" if kind is Rule else "name"
        raise ProjectError(f"{file}: {place}: '{missing}' is missing") from None
