"""What a person means: an output's path, a hash or its beginning, a git revision or experiment, a raw file, or a copy of an output."""

import hashlib
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.dvc.dir_listing import Listing, file_md5, files_under, listing_hash, object_path
from tasks.lineage.git_history import lock_at
from tasks.lineage.index import WEIGHTS, Data, Index
from tasks.lineage.versions import Version
from tasks.project.graph import Graph
from tasks.system.errors import ProjectError, nearest

HEX = re.compile(r"[0-9a-f]{6,64}")
EXPECTED = "a path, a hash of at least 6 digits, a git revision or experiment, or the name of a raw file is expected"


@dataclass(frozen=True)
class Resolved:
    """`makers`: the versions that made it; none for raw data. `data`: the outputs whose readers used it. `member`: a file of the output."""

    kind: str  # output, copy, hash, revision, raw, or input: read by a stage, made by none
    path: str
    hash: str
    makers: tuple[Version, ...]
    data: tuple[Data, ...]
    note: str = ""
    member: str = ""
    readers: tuple[Version, ...] = field(default=())  # of raw data, beside those of `data`


def find(index: Index, graph: Graph, query: str, cwd: Path) -> Resolved:
    """What `query` names; relative paths are resolved from `cwd`. ProjectError when nothing matches, or more than one thing does."""
    root = index.root
    inside = os.path.relpath(cwd / query, root)
    # A path may be meant from where the user stands, or from the root as dvc.yaml writes it.
    for path in dict.fromkeys([inside.rstrip("/"), query.rstrip("/")]):
        if graph.producer(path):
            return _output(index, graph, path)
    if (cwd / query).exists():
        held = graph.outs_of_dep(inside.rstrip("/"))
        try:
            return _copy(index, cwd / query, query)
        except ProjectError:
            if held:
                raise ProjectError(f"{query}: a folder of several outputs; ask about one of them: {', '.join(held)}") from None
            raise
    # Before revisions: `abc123` may be the beginning of both, and data is what this command is asked about.
    if HEX.fullmatch(text := query.lower().removesuffix(".dir")):
        resolved = _hash(index, text)
        if resolved:
            return resolved
    revision, _, path = query.partition(":")
    commit_and_lock = lock_at(root, revision) if revision else None
    if commit_and_lock:
        return _revision(
            index, revision, commit_and_lock[0], index.of_lock(commit_and_lock[1].text, f"dvc.lock of {revision}"), path.rstrip("/")
        )
    readers = [version for version in index.versions if query in _raw_files(index, version)]
    if readers:
        return _raw(index, query, readers)
    outs = sorted(out for stage in graph.stages.values() for out in stage.outs)
    raws = sorted({name for version in index.versions for name in _raw_files(index, version)})
    alternatives = f"(raw files: {', '.join(raws) or 'none known yet'}; outputs: {', '.join(outs)})"
    raise ProjectError(f"{query}: no stage makes it{nearest(query, [*raws, *outs])} {alternatives}; {EXPECTED}")


def _output(index: Index, graph: Graph, path: str) -> Resolved:
    """An output, or a file of one, as the workspace's dvc.lock has it."""
    stage = graph.producer(path)
    version = index.current.get(stage.name) if stage else None
    if stage is None or version is None:
        name = stage.name if stage else ""
        raise ProjectError(f"{path}: its stage '{name}' has never run; run: gr2 run {name}")
    return _of_version(index, "output", version, path)


def _of_version(index: Index, kind: str, version: Version, path: str, note: str = "") -> Resolved:
    output = next((out for out in version.outputs if path == out or path.startswith(out + "/")), None)
    if output is None:
        raise ProjectError(f"{path}: {note or 'dvc.lock'} records no such output of '{version.stage}'")
    md5, member = version.outputs[output]["hash"], path.removeprefix(output).lstrip("/")
    content_hash = index.listing(md5).get(member, "") if member else md5
    return _with_readers_of_raw(index, Resolved(kind, output, content_hash, (version,), ((output, md5),), note, member))


def _revision(index: Index, revision: str, commit: str, versions: list[Version], path: str) -> Resolved:
    note = f"dvc.lock of {revision} (commit {commit[:9]})"
    if path:
        for version in versions:
            if any(path == out or path.startswith(out + "/") for out in version.outputs):
                return _of_version(index, "revision", version, path, note)
        outs = [out for version in versions for out in version.outputs]
        raise ProjectError(f"{path}: {note} records no such output{nearest(path, outs)}")
    return Resolved("revision", "", commit, tuple(versions), (), note)


def _hash(index: Index, text: str) -> Resolved | None:
    """By what begins with `text`: the md5 of an output, of a file in one, of data no stage makes; the sha256 of a raw file."""
    outputs: dict[str, list[Data]] = defaultdict(list)
    members: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    inputs: dict[str, list[tuple[Data, str]]] = defaultdict(list)
    raws: dict[str, list[tuple[str, Version]]] = defaultdict(list)
    for path, md5 in index.by_output:
        if md5.startswith(text):
            outputs[md5].append((path, md5))
        for name, member in (index.listing(md5) if md5.endswith(".dir") else {}).items():
            if member.startswith(text):
                members[member].append((path, md5, name))
    for path, md5 in index.external_inputs:
        if md5.startswith(text):
            inputs[md5].append(((path, md5), ""))
        for name, member in (index.listing(md5) if md5.endswith(".dir") else {}).items():
            if member.startswith(text):
                inputs[member].append(((path, md5), name))
    for version in index.versions:
        for name, sha256 in _raw_files(index, version).items():
            if sha256.startswith(text):
                raws[sha256].append((name, version))
    matching_hashes = {md5.removesuffix(".dir") for md5 in (*outputs, *members, *inputs, *raws)}
    if len(matching_hashes) > 1:
        raise ProjectError(f"{text}: more than one hash begins like that: {', '.join(sorted(matching_hashes)[:8])}; give more digits")
    if outputs:
        (data,) = outputs.values()
        return _among(index, "hash", data)
    if members:
        (occurrences,) = members.values()
        holder = _among(index, "hash", [(path, md5) for path, md5, _ in occurrences])
        name = next(name for path, md5, name in occurrences if (path, md5) == holder.data[0])
        resolved = Resolved("hash", holder.path, str(next(iter(members))), holder.makers, holder.data, holder.note, name)
        return _with_readers_of_raw(index, resolved)
    if inputs:
        (reads,) = inputs.values()
        folders = tuple(dict.fromkeys(folder for folder, _ in reads))
        resolved = Resolved("input", folders[0][0], next(iter(inputs)), (), folders, "no stage makes it", reads[0][1])
        return _with_readers_of_raw(index, resolved)
    if raws:
        (files,) = raws.values()
        return _raw(index, files[0][0], [version for _, version in files], next(iter(raws)))
    return None


def _among(index: Index, kind: str, data: list[Data], note: str = "") -> Resolved:
    """One thing under several paths or from several versions: the workspace's first, then the newest."""
    makers = [(data_path, version) for data_path in dict.fromkeys(data) for version in index.by_output[data_path]]
    best = index.nearest({"workspace"}, [], [version for _, version in makers])
    data_path = next(data_path for data_path, version in makers if version is best)
    other_paths = sorted({path for path, _ in data} - {data_path[0]})
    notes = [note, f"the same bytes: {', '.join(other_paths)}" if other_paths else ""]
    return Resolved(kind, data_path[0], data_path[1], (best,), tuple(dict.fromkeys([data_path, *data])), "; ".join(filter(None, notes)))


def _raw(index: Index, name: str, readers: list[Version], sha256: str = "") -> Resolved:
    """All versions of a file by its name; or the one with this sha256."""
    hashes = dict.fromkeys([sha256] if sha256 else [_raw_files(index, version)[name] for version in readers])
    note = f"{len(hashes)} versions of it were read" if len(hashes) > 1 else ""
    return Resolved("raw", name, ", ".join(hashes), (), (), note, readers=tuple(readers))


def _raw_files(index: Index, version: Version) -> dict[str, str]:
    """name -> sha256 of the raw files that the version read."""
    raw = index.raw(version) or {}
    files = {name: str(file.get("sha256", "")) for name, file in (raw.get("files") or {}).items() if isinstance(file, dict)}
    return {**files, str(raw["name"]): str(raw["sha256"])} if raw.get("name") else files


def _with_readers_of_raw(index: Index, resolved: Resolved) -> Resolved:
    """Adds the versions that read the same raw file before DVC knew it: metrics of old and new versions name it by sha256."""
    sha256s = {sha256 for data in resolved.data for sha256 in _raw_sha256s(index, data, resolved.member)}
    readers = [version for version in index.versions if sha256s.intersection(_raw_files(index, version).values())]
    return replace(resolved, readers=tuple(readers)) if sha256s else resolved


def _raw_sha256s(index: Index, data: Data, member: str) -> set[str]:
    """sha256 of those files of `data` (`member` alone where it is given) that are known as raw files."""
    path, md5 = data
    listing = index.listing(md5) if md5.endswith(".dir") else {path: md5}
    files = {name: file_hash for name, file_hash in listing.items() if member in ("", name)}
    readers = [_raw_files(index, version) for version in index.readers.get(data, [])]
    named = {raw[Path(name).name] for name in files for raw in readers if Path(name).name in raw}
    if named:
        return named
    # No version that read it names it: the stage that reads it has not run since. A name known from elsewhere is worth hashing the file.
    raw_names = {name for version in index.versions for name in _raw_files(index, version)}
    objects = [object_path(index.root, file_hash) for name, file_hash in files.items() if Path(name).name in raw_names]
    return {_sha256(path) for path in objects if path.is_file()}


def _copy(index: Index, location: Path, query: str) -> Resolved:
    """The output or raw file whose content equals, or for a folder mostly equals, that of `location`, which is no output."""
    if location.is_file():
        resolved = _hash(index, file_md5(location)) or _hash(index, _sha256(location))
        if resolved:
            return resolved if resolved.kind in ("raw", "input") else replace(resolved, kind="copy")
        raise ProjectError(f"{query}: no stage made or read a file with this content, as far as dvc.lock, git and the record know")
    files = {name: file_md5(location / name) for name in files_under(location)}
    equal_folders = [data for data in index.by_output if data[1] == listing_hash(files)]
    if equal_folders:
        return _with_readers_of_raw(index, _among(index, "copy", equal_folders, f"all {len(files)} files match"))
    read = tuple(data for data in index.external_inputs if data[1] == listing_hash(files))
    if read:
        return _with_readers_of_raw(index, Resolved("input", read[0][0], read[0][1], (), read, "no stage makes it"))
    # Weights count before files: two checkpoints of one model share the tokenizer and the configuration.
    best = max(
        ((_alike(index.listing(data[1]), files), data) for data in index.by_output if data[1].endswith(".dir")), default=((0, 0), None)
    )
    if best[1] is None or best[0] == (0, 0):
        raise ProjectError(f"{query}: no output has these weights or most of these files, as far as dvc.lock, git and the record know")
    output_files = index.listing(best[1][1])
    holders = [data for data in index.by_output if data[1] == best[1][1]]
    return _among(index, "copy", holders, _words(output_files, files))


def _alike(output_files: Listing, files: Listing) -> tuple[int, int]:
    """(weights, files) of a known folder that are in the copy; (0, 0) when neither its weights nor at least half of its files are."""
    contents = set(files.values())
    same = [name for name, md5 in output_files.items() if md5 in contents]
    weights = sum(name.endswith(WEIGHTS) for name in same)
    fits = weights if any(name.endswith(WEIGHTS) for name in output_files) else 2 * len(same) >= max(1, len(output_files))
    return (weights, len(same)) if fits else (0, 0)


def _words(output_files: Listing, files: Listing) -> str:
    same = [name for name, md5 in output_files.items() if md5 in files.values()]
    differ = [name for name, md5 in output_files.items() if name in files and md5 not in files.values()]
    missing = [name for name in output_files if name not in files and output_files[name] not in files.values()]
    more = [name for name, md5 in files.items() if md5 not in output_files.values() and name not in output_files]
    groups = [(differ, "differ"), (missing, "missing"), (more, "not part of it")]
    return "; ".join(
        [f"{len(same)} of {len(output_files)} files match", *(f"{word}: {', '.join(names[:8])}" for names, word in groups if names)]
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
