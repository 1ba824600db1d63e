"""Lineage, its differences and its verification as a person reads them on a terminal."""

import json
from collections.abc import Iterable, Mapping
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tasks.lineage.diff import Difference
from tasks.lineage.query import ChainLink, LineageChain, Use
from tasks.lineage.verify import Verification

VALUE_WIDTH = 160  # longer values are cut


def lineage_view(chain: LineageChain) -> RenderableType:
    """A tree from the output or file down to the raw file, nearest stage first, then the outputs made from it. Of code it counts the files
    of each package; `gr2 lineage --json` has the hash of every file."""
    tree = Tree(Text.assemble((chain.path, "bold"), f"  {_hash(chain)}", f"  {_size(chain.size)}" if chain.size is not None else ""))
    if chain.note:
        tree.add(Text(chain.note, "red" if chain.kind == "output" and not chain.matches_lock else "green"))
    for link in chain.stages:
        _add_stage(tree.add(Text.assemble((link.name, "bold cyan"), f"  ({', '.join(link.refs)})" if link.refs else "")), link)
    if chain.raw:
        raw = chain.raw
        sizes = f"{_size(raw.get('bytes'))}  {raw.get('rows')} rows"
        branch = tree.add(Text.assemble(("raw ", "bold"), f"{raw.get('name')}  sha256 {raw.get('sha256')}  {sizes}"))
        if raw.get("source"):
            branch.add(Text(f"source: {raw['source']}"))
        for name, file in (raw.get("files") or {}).items():
            if name != raw.get("name"):
                branch.add(Text(f"{name}  sha256 {file.get('sha256')}  {_size(file.get('bytes'))}"))
    if chain.downstream:
        models = sum(use.model for use in chain.downstream)
        branch = tree.add(Text(f"made from it: {len(chain.downstream)} outputs, {models} of them models", "bold"))
        for use in chain.downstream:
            branch.add(Text.assemble((use.path, "bold magenta" if use.model else ""), f"  md5 {use.hash}  {_recorded_in(use)}"))
    return tree


def users_view(data: str, uses: list[Use]) -> RenderableType:
    """A table of the models made from the raw file or data set `data`: those to train again if it changes."""
    if not uses:
        return Text(f"No model that dvc.lock, git or the record knows was made from {data}.")
    table = Table("model", "md5", "stage", "current in", "revision", "made", box=None, pad_edge=False)
    for use in uses:
        revision = use.revision or (use.commits[0] if use.commits else "")
        table.add_row(use.path, use.hash, use.stage, ", ".join(use.refs) or "-", revision[:9] or "-", use.time[:19] or "-")
    current = sum(bool(use.refs) for use in uses)
    return Group(
        table, Text(f"{len(uses)} models were made from {data}, {current} of them are current in the workspace or a git ref.", "bold")
    )


def diff_view(a: str, b: str, rows: list[Difference]) -> RenderableType:
    if not rows:
        return Text(f"{a} and {b} were made alike.")
    table = Table("stage", "what", "key", a, b, "why", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.stage, row.kind, row.key, _value_text(row.a), _value_text(row.b), row.why)
    return table


def verdict_view(verdict: Verification) -> RenderableType:
    counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in verdict.checked.items())
    blocks: list[RenderableType] = [Text(note) for note in verdict.notes]
    if verdict.problems:
        table = Table("file", "what is wrong", "remedy", box=None, pad_edge=False)
        for problem in verdict.problems:
            table.add_row(Text(problem.file, "red"), Text(problem.what), Text(problem.remedy))
        blocks += [table, Text(f"{len(verdict.problems)} problems ({counts})", "bold red")]
    else:
        blocks.append(Text(f"Every hash fits ({counts}).", "bold green"))
    return Group(*blocks)


def _add_stage(tree: Tree, link: ChainLink) -> None:
    tree.add(Text(f"$ {link.command}" + (f"   (after {', '.join(link.upstream)})" if link.upstream else "")))
    if link.run:
        dirty = ", with uncommitted changes" if link.run.get("dirty") else ""
        seconds = "" if link.run.get("seconds") is None else f", {link.run['seconds']:.1f} s"
        restored = f", restored from the {link.run['restored']}" if link.run.get("restored") else ""
        when = f"{link.run['time'][:19]} UTC on {link.run.get('host')}"
        tree.add(Text(f"revision {link.run.get('revision')}{dirty}; {when}{seconds}{restored}"))
        environment = [(name, f"sha256 {sha256}") for name, sha256 in (link.run["environment"].get("locks") or {}).items()]
        if environment:
            tree.add(Text("; ".join(f"{name} {text}" for name, text in environment)))
    if link.params:
        _add_values(tree.add("params"), link.params)
    for title, entries in (("inputs", link.inputs), ("outputs", link.outputs)):
        if entries:
            branch = tree.add(title)
            for path, entry in entries.items():
                branch.add(Text(f"{path}  md5 {entry['hash']}  {_size(entry['size'])}"))
    branch = tree.add(f"code: {len(link.code)} files")
    for package, paths in groupby(sorted(link.code), lambda path: path.rpartition("/")[0]):
        files = list(paths)
        branch.add(Text(f"{package}: {len(files)} files" if len(files) > 1 else f"{files[0]}  md5 {link.code[files[0]]}"))
    if link.metrics:
        _add_values(
            tree.add("metrics"), {key: value for key, value in link.metrics.items() if key != "raw"}
        )  # the raw file has a line of its own


def _add_values(tree: Tree, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        tree.add(Text(f"{key}: ") + _value_text(value))


def _value_text(value: object) -> Text:
    text = value if isinstance(value, str) else "-" if value is None else json.dumps(value)
    return Text(text if len(text) <= VALUE_WIDTH else text[: VALUE_WIDTH - 3] + "...")


def _hash(chain: LineageChain) -> str:
    algorithm = {"raw": "sha256", "revision": "md5" if chain.output else "commit"}.get(chain.kind, "md5")
    return f"{algorithm} {chain.hash or 'unknown'}"


def _recorded_in(use: Use) -> str:
    """The refs in which the output is current, else the newest commits that record it, else the lineage record alone."""
    names: Iterable[str] = use.refs or (f"commit {commit[:9]}" for commit in use.commits)
    return ", ".join(names) or f"in the record alone, {use.time[:19]}"


def _size(size: int | None) -> str:
    if size is None:
        return "size unknown"
    value, unit = float(size), "B"
    for larger in ("KB", "MB", "GB"):
        if value >= 1000:
            value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
