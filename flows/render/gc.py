"""What gr2 gc would remove and what keeps the rest, as a person reads it."""

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from tasks.maintenance.gc import GcReport


def gc_view(reports: list[GcReport], listed: int) -> RenderableType:
    parts: list[RenderableType] = []
    for report in reports:
        parts.append(Text(f"{report.where}: {len(report.unneeded):,} objects that nothing needs, {decimal(report.size)}", "bold"))
        if report.unneeded:
            parts.append(_unneeded(report, listed))
    keepers = Table("kept by", "name", "outputs", "size", box=None, pad_edge=False)
    for keeper in reports[0].keepers:
        keepers.add_row(keeper.kind, keeper.name, f"{keeper.outs}", decimal(keeper.size))
    return Group(*parts, Text(""), keepers)


def _unneeded(report: GcReport, listed: int) -> Table:
    table = Table("size", "stage", "path", "md5", box=None, pad_edge=False)
    for own in report.unneeded[:listed]:
        table.add_row(decimal(own.size), own.stage or "?", own.path or "?", own.hash)
    if rest := report.unneeded[listed:]:
        table.add_row(decimal(sum(own.size for own in rest)), "", f"in {len(rest):,} smaller ones", "")
    return table
