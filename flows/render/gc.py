"""What gr2 gc would remove and what keeps the rest, as a person reads it."""

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from tasks.maintenance.gc import Survey


def gc_view(surveys: list[Survey], listed: int) -> RenderableType:
    parts: list[RenderableType] = []
    for survey in surveys:
        parts.append(Text(f"{survey.where}: {len(survey.unneeded):,} objects that nothing needs, {decimal(survey.size)}", "bold"))
        if survey.unneeded:
            parts.append(_unneeded(survey, listed))
    keepers = Table("kept by", "name", "outputs", "size", box=None, pad_edge=False)
    for keeper in surveys[0].keepers:
        keepers.add_row(keeper.kind, keeper.name, f"{keeper.outs}", decimal(keeper.size))
    return Group(*parts, Text(""), keepers)


def _unneeded(survey: Survey, listed: int) -> Table:
    table = Table("size", "stage", "path", "md5", box=None, pad_edge=False)
    for own in survey.unneeded[:listed]:
        table.add_row(decimal(own.size), own.stage or "?", own.path or "?", own.hash)
    if rest := survey.unneeded[listed:]:
        table.add_row(decimal(sum(own.size for own in rest)), "", f"in {len(rest):,} smaller ones", "")
    return table
