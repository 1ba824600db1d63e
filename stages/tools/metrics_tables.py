"""The tables of metrics in docs/stages.md, from the stages' pydantic models: `python -m stages.tools.metrics_tables` writes them anew."""

import inspect
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from stages.distil.metrics import DistilMetrics
from stages.embed.metrics import EmbedMetrics
from stages.ingest.metrics import IngestMetrics
from stages.midtrain.metrics import MidtrainMetrics
from stages.quantize.metrics import QuantizeMetrics
from stages.report.metrics_model import ReportMetrics
from stages.retrieve.metrics import RetrieveMetrics
from stages.rl.metrics import RlMetrics
from stages.sft.metrics import SftMetrics
from stages.shared.core.errors import StageError
from stages.shared.evaluation.evaluate_metrics import EvaluateMetrics
from stages.tokenize.metrics import TokenizeMetrics
from stages.traces.metrics import TracesMetrics

PAGE = Path("docs/stages.md")
# stage -> the model of its metrics.json. A stage with one gets a table between its two comments in PAGE.
METRICS: dict[str, type[BaseModel]] = {
    "ingest": IngestMetrics,
    "embed": EmbedMetrics,
    "tokenize": TokenizeMetrics,
    "retrieve": RetrieveMetrics,
    "midtrain": MidtrainMetrics,
    "traces": TracesMetrics,
    "sft": SftMetrics,
    "distil": DistilMetrics,
    "rl": RlMetrics,
    "quantize": QuantizeMetrics,
    "evaluate": EvaluateMetrics,
    "report": ReportMetrics,
}


def table(stage: str, model: type[BaseModel]) -> str:
    rows = [f"| `{key}` | {description} |" for key, description in keys(model)]
    return "\n".join([f"| key of `data/{stage}/metrics.json` | meaning |", "|---|---|", *rows])


def keys(model: type[BaseModel], prefix: str = "", listed: frozenset[type[BaseModel]] = frozenset()) -> list[tuple[str, str]]:
    """(dotted key, description) of every field, the fields of models within it after it; `<name>` is the key of a mapping.

    A model that occurs twice on one level is spelt out the first time.
    """
    rows: list[tuple[str, str]] = []
    for name, field in model.model_fields.items():
        key = field.alias or name  # "try" and "ndcg@5" cannot be names of fields
        rows.append((f"{prefix}{key}", str(field.description)))
        path, inner = _inner(field.annotation)
        # Once a level: ten rankers of one shape would fill the page with ten equal lists.
        if inner is not None and inner not in listed:
            rows += keys(inner, f"{prefix}{key}.{path}", listed)
            listed |= {inner}
    for base in model.__mro__:
        # BaseModel annotates it too, without a type of the values.
        if base is not BaseModel and (extra := inspect.get_annotations(base).get("__pydantic_extra__")):
            rows += keys(get_args(extra)[1], f"{prefix}<metric>.", listed)
    return rows


def with_tables(page: str) -> str:
    """`page` with every table between its comments as it must be."""
    for stage, model in METRICS.items():
        begin, end = f"<!-- begin metrics of {stage}: python -m stages.tools.metrics_tables -->", f"<!-- end metrics of {stage} -->"
        head, has_begin, rest = page.partition(begin)
        _, has_end, tail = rest.partition(end)
        if not (has_begin and has_end):
            raise StageError(f"{PAGE}: the comments '{begin}' and '{end}' are missing; put them where the table belongs")
        page = f"{head}{begin}\n{table(stage, model)}\n{end}{tail}"
    return page


def _inner(annotation: Any) -> tuple[str, type[BaseModel] | None]:
    """The model within an annotation, and the path to it: "<name>." for each mapping around it, nothing for a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "", annotation
    for part in get_args(annotation):
        path, inner = _inner(part)
        if inner is not None:
            return ("<name>." if getattr(annotation, "__origin__", None) is dict else "") + path, inner
    return "", None


if __name__ == "__main__":
    try:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    except StageError as error:
        sys.exit(f"metrics_tables: {error}")
