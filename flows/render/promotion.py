"""The page of a decision about a candidate, beside its JSON record."""

from pathlib import Path

from tasks.promotion.record import PROMOTED, PROPOSED, ROLLED_BACK, DecisionRecord
from tasks.system.yaml_files import write_text

GOOD = (PROMOTED, PROPOSED, ROLLED_BACK)


def write_page(path: Path, record: DecisionRecord) -> Path:
    """One file without links to anything outside it. -> `path`."""
    import jinja2  # only where a page is written

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of revisions and messages of tools are text from outside
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    slices: list[dict[str, object]] = next((check["evidence"]["slices"] for check in record.checks if "slices" in check["evidence"]), [])
    template = environment.get_template("promotion.html.j2")
    write_text(path, template.render(record=record, good=record.decision in GOOD, slices=slices, decimals=_decimals))
    return path


def _decimals(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
