"""Plans, statuses and lineage as a person reads them."""

import json
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tasks.lineage import Chain, Link
from tasks.plan import Plan

COLOURS = {"run": "yellow", "cached": "cyan", "current": "green", "changed": "yellow", "never run": "yellow"}


def plan_view(plan: Plan) -> RenderableType:
    table = Table("stage", "action", "why", box=None, pad_edge=False)
    for stage in plan.stages:
        table.add_row(stage.name, Text(stage.action, COLOURS[stage.action]), Text("\n".join(map(str, stage.causes))))
    running = sum(stage.action == "run" for stage in plan.stages)
    summary = (
        "Nothing to run." if not running else f"{running} of {len(plan.stages)} stages would run; those behind others may yet end Cached."
    )
    return Group(table, Text(summary, "bold"))


def status_view(rows: list[dict[str, Any]]) -> RenderableType:
    table = Table("stage", "status", "last run", "when", box=None, pad_edge=False)
    table.add_column("seconds", justify="right")
    for row in rows:
        last = row["last_run"] or {"state": "-", "time": "-", "seconds": None}
        seconds = "-" if last["seconds"] is None else f"{last['seconds']:.1f}"
        table.add_row(row["name"], Text(row["status"], COLOURS[row["status"]]), last["state"], last["time"][:19], seconds)
    return table


def lineage_view(chain: Chain) -> RenderableType:
    """A tree from the output down to the raw file, nearest stage first."""
    tree = Tree(Text.assemble((chain.path, "bold"), f"  md5 {chain.hash or 'unknown'}", f"  {_size(chain.size)}"))
    tree.add(Text(chain.note, "green" if chain.matches_lock else "red"))
    for link in chain.stages:
        _add_stage(tree.add(Text(link.name, "bold cyan")), link)
    if chain.raw:
        raw = chain.raw
        tree.add(
            Text.assemble(
                ("raw ", "bold"), f"{raw.get('name')}  sha256 {raw.get('sha256')}  {_size(raw.get('bytes'))}  {raw.get('rows')} rows"
            )
        )
    return tree


def _add_stage(tree: Tree, link: Link) -> None:
    tree.add(Text(f"$ {link.command}" + (f"   (after {', '.join(link.upstream)})" if link.upstream else "")))
    if link.run:
        dirty = ", with uncommitted changes" if link.run["dirty"] else ""
        seconds = "" if link.run["seconds"] is None else f", {link.run['seconds']:.1f} s"
        tree.add(Text(f"revision {link.run['revision']}{dirty}; {link.run['time'][:19]} UTC on {link.run['host']}{seconds}"))
    if link.params:
        _add_values(tree.add("params"), link.params)
    for title, entries in (("inputs", link.inputs), ("outputs", link.outputs)):
        if entries:
            branch = tree.add(title)
            for path, entry in entries.items():
                branch.add(Text(f"{path}  md5 {entry['hash']}  {_size(entry['size'])}"))
    branch = tree.add(f"code: {len(link.code)} files")
    for path, md5 in link.code.items():
        branch.add(Text(f"{path}  md5 {md5}"))
    if link.metrics:
        _add_values(tree.add("metrics"), {key: value for key, value in link.metrics.items() if key != "raw"})


def _add_values(tree: Tree, values: dict[str, Any]) -> None:
    for key, value in values.items():
        text = json.dumps(value)
        tree.add(Text(f"{key}: {text if len(text) <= 160 else text[:157] + '...'}"))


def _size(size: int | None) -> str:
    if size is None:
        return "size unknown"
    value, unit = float(size), "B"
    for larger in ("KB", "MB", "GB"):
        if value >= 1000:
            value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
