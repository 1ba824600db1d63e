"""Where a thing comes from and what was made from it: upstream to the raw file, downstream to every model; and who used a data set.

dvc.lock alone is enough, so the chain also holds after plain `dvc repro`; revision, time and host are known only for runs of `gr2 run`.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from tasks.dvc.dir_listing import file_md5
from tasks.dvc.repo import open_repo
from tasks.lineage.index import Data, Index
from tasks.lineage.resolve import Resolved, find
from tasks.lineage.versions import Hashes, RawData, RunFacts, Version
from tasks.project.graph import Graph


@dataclass(frozen=True)
class ChainLink:
    """One stage of the chain. `run`: revision, dirty, host, seconds, time and more of its newest run; empty where none is recorded."""

    name: str
    command: str
    code: dict[str, str]
    params: dict[str, object]
    inputs: Hashes
    outputs: Hashes
    metrics: dict[str, object]
    run: RunFacts
    upstream: tuple[str, ...]
    refs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Use:
    """An output made from the data set, directly or through others. `refs`: where it is current; `commits`: the newest that record it."""

    stage: str
    path: str
    hash: str
    model: bool
    refs: tuple[str, ...]
    commits: tuple[str, ...]
    revision: str
    time: str


@dataclass(frozen=True)
class LineageChain:
    """`stages`: nearest first. `matches_lock`: whether the file in the workspace is the one dvc.lock records; `note` says it in words."""

    path: str
    output: str
    stage: str
    hash: str
    size: int | None
    matches_lock: bool
    note: str
    stages: tuple[ChainLink, ...]
    raw: RawData | None
    kind: str = "output"
    downstream: tuple[Use, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def chain(root: Path, graph: Graph, query: str, cwd: Path | None = None, index: Index | None = None) -> LineageChain:
    """The chain of what `query` names (tasks.lineage.resolve); relative paths are resolved from `cwd`, by default the root."""
    index = index or Index(root)
    resolved = find(index, graph, query, cwd or root)
    links = tuple(_link(index, version) for version in index.upstream_versions(resolved.makers))
    # The link furthest upstream is the one that read the raw file.
    raw = next((cast(RawData, raw) for link in reversed(links) if isinstance(raw := link.metrics.get("raw"), dict)), None)
    path = f"{resolved.path}/{resolved.member}" if resolved.member else resolved.path
    note, content_hash, size = resolved.note, resolved.hash, _size(resolved)
    differs = ""
    if resolved.kind == "output":
        differs = _compare(root, resolved)
        note = differs or "the file is the one dvc.lock records"
        if resolved.member and (root / path).is_file():
            content_hash, size = file_md5(root / path), (root / path).stat().st_size
    return LineageChain(
        path=path or query,
        output=resolved.path,
        stage=resolved.makers[0].stage if resolved.path and resolved.makers else "",
        hash=content_hash,
        size=size,
        matches_lock=resolved.kind == "output" and not differs,
        note=note,
        stages=links,
        raw=raw,
        kind=resolved.kind,
        downstream=tuple(users(index, resolved)),
    )


def users(index: Index, resolved: Resolved) -> list[Use]:
    """Every output of any known version that was produced from `resolved`; nearest first."""
    direct = {version.key: version for version in resolved.readers}
    outputs: list[Data] = [(path, out["hash"]) for version in direct.values() for path, out in version.outputs.items()]
    # `readers` are known by the raw file's sha256 alone; what was made of their outputs counts as well.
    downstream = {version.key: version for version in index.downstream_versions([*resolved.data, *outputs])}
    return [
        _use(index, version, path, out["hash"]) for version in {**direct, **downstream}.values() for path, out in version.outputs.items()
    ]


def retrain(uses: Iterable[Use]) -> list[Use]:
    """The models among them; those that stand in the workspace or a ref first."""
    return sorted((use for use in uses if use.model), key=lambda use: ("workspace" not in use.refs, not use.refs))


def _link(index: Index, version: Version) -> ChainLink:
    return ChainLink(
        name=version.stage,
        command=version.command,
        code=version.code,
        params=version.flat_params,
        inputs=version.inputs,
        outputs=version.outputs,
        metrics=index.metrics(version),
        run=version.runs[-1] if version.runs else {},
        upstream=tuple(dict.fromkeys(maker.stage for _, maker in index.producers(version))),
        refs=tuple(sorted(version.refs)),
    )


def _use(index: Index, version: Version, path: str, md5: str) -> Use:
    run = version.runs[-1] if version.runs else {}
    return Use(
        stage=version.stage,
        path=path,
        hash=md5,
        model=index.is_model(path, md5),
        refs=tuple(sorted(version.refs)),
        commits=tuple(version.commits[:3]),
        revision=str(run.get("revision") or ""),
        time=str(run.get("time") or ""),
    )


def _size(resolved: Resolved) -> int | None:
    if resolved.member or not resolved.makers or not resolved.path:
        return None
    return resolved.makers[0].outputs[resolved.path]["size"]


def _compare(root: Path, resolved: Resolved) -> str:
    """How the output in the workspace differs from the one in dvc.lock, in words; empty when they are the same."""
    version, recorded = resolved.makers[0], resolved.data[0][1]
    # DVC decides whether a file is the recorded one: it knows .dvcignore, and remembers the hashes of files that did not change.
    with open_repo(root) as repo:
        outs = [out for out in repo.index.outs if out.def_path == resolved.path and getattr(out.stage, "name", "") == version.stage]
        status = list(outs[0].workspace_status().values()) if outs else ["new"]
    if "deleted" in status:
        return f"not in the workspace; dvc.lock records {recorded}; bring it back with: gr2 run {version.stage}"
    return f"differs from dvc.lock ({recorded}); the chain below is that of the recorded version" if status else ""
