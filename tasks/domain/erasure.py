"""A request for deletion: what a user's data went into, the entry that leaves it out, and the proof that it is gone.

What a user is to the data, the module stages.tools.data_subject knows; here stand the graph, git's and DVC's versions.
"""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.domain.raw_data import INGEST
from tasks.domain.raw_objects import raw_objects
from tasks.dvc.dir_listing import object_in
from tasks.dvc.lockfile import Entry, locked_hashes, read_lock
from tasks.dvc.repo import open_repo
from tasks.lineage.git_history import Parser, git_locks
from tasks.project.graph import Graph
from tasks.project.profiles import PARAMS, PROFILES
from tasks.run.plan import make_plan
from tasks.system.errors import ProjectError
from tasks.system.yaml_files import dump, parse, read_text, write_text

USERS = "data/ingest/users.parquet"
DEFAULT = PROFILES / "default.yaml"  # every profile is laid over it, so a list that stands here survives gr2 run --profile
WORKSPACE = "workspace"


@dataclass(frozen=True)
class HoldingVersion:
    """A dvc.lock of now or of git's history that may hold the user. `names`: refs whose tip it is; none: older commits only.

    `holds`: null = its table of users is not in the cache. `cached`: its outputs of ingest and all behind it that are there, but for
    those of now.
    """

    names: tuple[str, ...]
    users: str
    holds: bool | None
    cached: tuple[str, ...]


def find_user_data(root: Path, graph: Graph, user: str) -> dict[str, Any]:
    """All that is known of `user`: what stages.tools.data_subject tells, the stages made from the data, the versions, copies, messages."""
    with open_repo(root) as repo:
        cache, remotes = Path(repo.cache.local.path), sorted(repo.config.get("remote", {}))
    # .gr2 and .dvc/tmp hold workspaces of controls, slots of nodes and experiments: each may have copies of the tables.
    facts = _user_facts(root, user, [cache, root / ".gr2", root / ".dvc" / "tmp"])
    user = facts.get("user", user)  # as the tables have it
    table_files = [Path(path) for path in facts.pop("tables")]
    tables = {path.parent.name + path.name for path in table_files if cache in path.parents}
    names = graph.with_downstream(INGEST)
    plan = make_plan(root, graph, names)
    locks = _locks(root)
    # ingest leaves the user's rows out, but the downloaded files still have them.
    raw = raw_objects(root, graph, [lock for _, lock in locks], cache, facts["raw"].get("rows"))
    return {
        **facts,
        "raw_objects": [asdict(entry) for entry in raw if entry.rows != 0],
        "stages": {name: list(graph[name].outs) for name in names},
        "stale": [name for name in names if not plan[name].current],
        "versions": [asdict(version) for version in _versions(locks, names, cache, tables)],
        "tables_in_cache": len(tables),
        "copies": [str(path.relative_to(root)) for path in table_files if cache not in path.parents],
        "messages": _messages(root, user),
        "remotes": remotes,
    }


def remaining_data(findings: dict[str, Any]) -> dict[str, str]:
    """What still holds data of the user, or may hold it, in words by kind; empty: proven gone from this checkout and its cache."""
    raw = findings["raw"]
    uncertain = [version for version in findings["versions"] if version["holds"] is None and version["cached"]]
    reasons = {
        "params": "" if findings["listed"] or raw.get("rows") == 0 else f"{PARAMS} does not list the digest: the next run reads them again",
        "outputs": f"{USERS} holds the user" if findings["dense"] is not None else "" if findings["ingested"] else f"{USERS}: no such file",
        "stages": f"not rerun since: {', '.join(findings['stale'])}" if findings["stale"] else "",
        "cache": f"{findings['tables_in_cache']} older tables of users in DVC's cache hold them" if findings["tables_in_cache"] else "",
        "versions": f"{len(uncertain)} older versions with outputs in DVC's cache may have been made from their data" if uncertain else "",
        "raw": f"{len(findings['raw_objects'])} raw files that were fetched hold or may hold their rows" if findings["raw_objects"] else "",
        "copies": f"copies hold them: {', '.join(findings['copies'])}" if findings["copies"] else "",
    }
    # Whatever cannot be proven counts against: "clean" is what a person answers the user with.
    return {kind: words for kind, words in reasons.items() if words}


def list_digest(root: Path, digest: str) -> list[str]:
    """Adds `digest` to ingest.forget of params.yaml, and of the profile default where there is one; returns the files it changed."""
    files = [path for path in (Path(PARAMS), DEFAULT) if path == Path(PARAMS) or (root / path).exists()]
    texts = {path: text for path in files if (text := _with_digest(root / path, digest))}
    for path, text in texts.items():
        write_text(root / path, text)
    return [str(path) for path in texts]


def _with_digest(path: Path, digest: str) -> str:
    """The text of `path` with `digest` in its list; empty when it stands there."""
    from ruamel.yaml.comments import CommentedMap
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    document = parse(read_text(path, "gr2 run --profile default writes it anew"), path.name, round_trip=True)
    section = document.get(INGEST) if isinstance(document, dict) else None
    if not isinstance(section, CommentedMap):
        raise ProjectError(f"{path.name}: the section '{INGEST}' is missing; copy it from {DEFAULT}")
    if not isinstance(section.get("forget", []), list):
        raise ProjectError(f"{path.name}: {INGEST}.forget: a list is expected (got {section['forget']!r})")
    if digest in section.get("forget", []):
        return ""
    if "forget" not in section:  # at the front: ruamel would put it behind the comment that leads to the next section
        section.insert(0, "forget", [])
    section["forget"].append(DoubleQuotedScalarString(digest))  # quoted: one of digits alone would be a number
    return dump(document)


def _user_facts(root: Path, user: str, folders: list[Path]) -> dict[str, Any]:
    """What stages.tools.data_subject says; its `tables` are those below `folders`."""
    # A process, not an import: tasks knows no table of a stage.
    command = [sys.executable, "-m", "stages.tools.data_subject", "--tables", *map(str, folders), "--", user]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if result.returncode:
        raise ProjectError((result.stderr.strip() or f"{' '.join(command[1:3])}: exit code {result.returncode}").splitlines()[-1])
    return dict(json.loads(result.stdout))


Locks = list[tuple[tuple[str, ...], dict[str, Entry]]]


def _locks(root: Path) -> Locks:
    """(refs, dvc.lock): the workspace's, then every other in git."""
    parser = Parser()
    return [((WORKSPACE,), read_lock(root)), *((tuple(lock.refs), parser(lock.text, lock.source)) for lock in git_locks(root))]


def _versions(locks: Locks, names: list[str], cache: Path, tables: set[str]) -> list[HoldingVersion]:
    """The workspace's, then one for each other dvc.lock in git, those with a name first; without those that surely do not hold the user."""
    current_hashes = set(_outputs(locks[0][1], names).values())
    holding: dict[tuple[str, ...], HoldingVersion] = {}

    def cached(md5: str) -> bool:
        return object_in(cache, md5).exists()

    for refs, lock in locks:
        outs = _outputs(lock, names)
        users = outs.get(USERS, "")
        # Without its table of users nobody can tell whether a version holds the user: it is listed, as one that may.
        if not users or (cached(users) and users not in tables):
            continue
        key = tuple(sorted(outs.values()))  # many commits have the same outputs; each is told once
        earlier = holding[key].names if key in holding else ()
        is_current = WORKSPACE in (*earlier, *refs)
        cached_paths = tuple(path for path, md5 in outs.items() if cached(md5) and (is_current or md5 not in current_hashes))
        holding[key] = HoldingVersion((*earlier, *refs), users, True if cached(users) else None, cached_paths)
    return sorted(holding.values(), key=lambda version: (WORKSPACE not in version.names, not version.names))


def _outputs(lock: dict[str, Entry], names: list[str]) -> dict[str, str]:
    """path -> hash of what the stages `names` made."""
    return {
        path: content["hash"]
        for name in names
        for path, content in locked_hashes(lock.get(name, {}).get("outs")).items()
        if content["hash"]
    }


def _messages(root: Path, user: str) -> list[str]:
    """Files in which a failed ingest may have quoted a row of theirs: the id stands there as a word."""
    files = [root / ".gr2" / "logs" / f"{INGEST}.log", root / ".gr2" / "lineage" / "events.jsonl"]
    return [str(path.relative_to(root)) for path in files if path.exists() and _quotes(path, user)]


def _quotes(path: Path, user: str) -> bool:
    text = (
        path.read_text(encoding="utf-8", errors="replace").replace("\\\\t", " ").replace("\\t", " ")
    )  # a tab as repr writes it, in JSON or not
    quoting = (line for line in text.splitlines() if "row " in line)
    return any(user in "".join(char if char.isalnum() or char in "-_" else " " for char in line).split() for line in quoting)
