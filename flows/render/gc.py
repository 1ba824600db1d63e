"""What gr2 gc would remove and what keeps the rest, as a person reads it."""

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from tasks.maintenance.gc import GcReport


def gc_view(reports: list[GcReport], most_shown: int) -> RenderableType:
    """`most_shown`: how many unneeded objects of each report get a line of their own."""
    blocks: list[RenderableType] = []
    for report in reports:
        blocks.append(Text(f"{report.where}: {len(report.unneeded):,} objects that nothing needs, {decimal(report.size)}", "bold"))
        if report.unneeded:
            blocks.append(_unneeded(report, most_shown))
    if count := len(reports[0].unlisted):
        hint = f"{count} folders that something needs are not in the cache; dvc fetch --all-commits brings them, and their files are kept"
        blocks.append(Text(hint, "yellow"))
    keepers = Table("kept by", "name", "outputs", "size", box=None, pad_edge=False)
    for keeper in reports[0].keepers:  # the same for the cache and the remote
        keepers.add_row(keeper.kind, keeper.name, f"{keeper.outs}", decimal(keeper.size))
    return Group(*blocks, Text(""), keepers)


def _unneeded(report: GcReport, most_shown: int) -> Table:
    table = Table("size", "stage", "path", "md5", box=None, pad_edge=False)
    for entry in report.unneeded[:most_shown]:
        table.add_row(decimal(entry.size), entry.stage or "?", entry.path or "?", entry.hash)
    if rest := report.unneeded[most_shown:]:
        table.add_row(decimal(sum(entry.size for entry in rest)), "", f"in {len(rest):,} smaller ones", "")
    return table
