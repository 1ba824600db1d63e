"""Files of requests, and of answers: JSONL and Parquet, and those of other tools (stages/serve/formats)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from stages.serve.catalogue import IdCatalogue
from stages.serve.formats import rank_llm, trec
from stages.serve.parse import BadRequest, check_scores, name_of, rank_request
from stages.serve.requests import RankRequest, RankResult
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import Schema

SOURCE, NUMBER = "source", "number"  # what items are called: the data's own ids, or the pipeline's numbers
INPUTS, OUTPUTS = (".jsonl", ".parquet", trec.SUFFIX), (".jsonl", ".parquet", trec.SUFFIX, rank_llm.SUFFIX)
ANSWERS: Schema = {
    "id": pl.String,
    "order": pl.List(pl.String),
    "index": pl.List(pl.Int64),
    "scores": pl.List(pl.Float64),
    "reasoning": pl.String,
    "fallback": pl.String,
    "way": pl.String,
}


@dataclass(frozen=True)
class FileRow:
    """id: as the file has it, else the row's number. names: of the items, in the incoming order."""

    id: str
    names: list[str]
    request: RankRequest


def count_rows(path: Path) -> int:
    """StageError where a Parquet file cannot be read."""
    if path.suffix == ".parquet":
        try:
            return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
        except Exception as error:  # polars raises many kinds on a damaged file
            raise StageError(f"{path}: not a readable Parquet file ({error})") from None
    if path.suffix == trec.SUFFIX:
        return sum(1 for _ in trec.read_run(path))
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def read_rows(path: Path, first: int, topics: Path | None = None) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Rows from the number `first` on, with their numbers and where they stand. topics: of a TREC run.

    StageError names the line that cannot be read.
    """
    if path.suffix == trec.SUFFIX:
        for number, row in islice(enumerate(trec.read_run(path, topics)), first, None):
            yield number, f"{path}: query {row['id']}", row
        return
    if path.suffix == ".parquet":
        number = first
        while (part := pl.scan_parquet(path, glob=False).slice(number, 1024).collect()).height:
            yield from ((at, f"{path}: row {at}", row) for at, row in enumerate(part.iter_rows(named=True), number))
            number += part.height
        return
    number = 0
    with path.open(encoding="utf-8") as file:
        for line_number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if number >= first:
                where = f"{path}: line {line_number}"
                yield number, where, _object(line, where)
            number += 1


def file_row(catalogue: IdCatalogue, row: Mapping[str, Any], number: int, ids: str, where: str) -> FileRow:
    """`history` or `user_id`, and `candidates`, perhaps with `scores` and `id`; or rank_llm's `query` and `candidates` with `docid`."""
    candidates = row.get("candidates")
    if not isinstance(candidates, Sequence) or isinstance(candidates, str):
        raise StageError(f"{where}: `candidates` is no list; give the items to rank, best first")
    try:
        if rank_llm.is_request(row):
            row = rank_llm.request(row)
        identity = row.get("id", row.get("slate"))
        asked = row.get("query")
        if asked is None:
            asked = {key: row.get(key) for key in ("history", "user_id")}
        if ids == NUMBER:
            request = _by_number(catalogue, row, candidates)
        else:
            request = rank_request(catalogue, asked, candidates, row.get("scores"))
        names = [name_of(item, place) for place, item in enumerate(candidates)]
    except BadRequest as error:
        raise StageError(f"{where}: {error}") from None
    return FileRow(str(number if identity is None else identity), names, request)


def answer(row: FileRow, result: RankResult) -> dict[str, Any]:
    """A line of the output, as ANSWERS has it."""
    order = list(result.order)
    values = (row.id, [row.names[place] for place in order], order, list(result.scores), result.reasoning, result.fallback, result.way)
    return dict(zip(ANSWERS, values, strict=True))


def convert(lines: Path, output: Path, requests: Path, topics: Path | None = None) -> None:
    """The answers in the file `lines` of JSONL as `output`, by its suffix; `lines` is gone then. requests, topics: what they answer."""
    theirs = output.name.endswith(rank_llm.SUFFIX)
    if output.suffix == ".jsonl" and not theirs:
        lines.replace(output)
        return
    partial = output.with_name(f".{output.name}.partial")
    if output.suffix == ".parquet":
        pl.scan_ndjson(lines, schema=ANSWERS).sink_parquet(partial)
    else:
        with partial.open("w", encoding="utf-8") as file, lines.open(encoding="utf-8") as read:
            answers = map(json.loads, read)
            if theirs:
                rows = (row for _, _, row in read_rows(requests, 0, topics))
                file.writelines(_rank_llm(row, answered) for row, answered in zip(rows, answers, strict=True))
            else:
                file.writelines(line for one in answers for line in trec.run_lines(one["id"], one["order"], one["scores"]))
    partial.replace(output)
    lines.unlink()


def _rank_llm(row: Mapping[str, Any], answered: Mapping[str, Any]) -> str:
    """A request of another form is written as one of rank_llm's whose documents have no text."""
    if not rank_llm.is_request(row):
        docs = [{"docid": name_of(item, place), "doc": {}} for place, item in enumerate(row["candidates"])]
        asked = row.get("query") or {key: row[key] for key in ("user_id", "history") if row.get(key) is not None}
        text = asked if isinstance(asked, str) else json.dumps(asked, ensure_ascii=False)
        row = {"query": {"text": text, "qid": answered["id"]}, "candidates": docs}
    return json.dumps(rank_llm.result(row, answered["index"], answered["scores"]), ensure_ascii=False) + "\n"


def _by_number(catalogue: IdCatalogue, row: Mapping[str, Any], candidates: Sequence[Any]) -> RankRequest:
    history, scores, known = row.get("history"), row.get("scores"), range(catalogue.items.height)
    if not isinstance(history, Sequence) or not all(isinstance(item, int) for item in [*history, *candidates]):
        raise BadRequest("with --ids number, `history` and `candidates` are lists of the pipeline's item numbers")
    if not candidates:
        raise BadRequest("nothing to rank: give at least one candidate")
    check_scores(scores, len(candidates))
    return RankRequest([item for item in history if item in known], [item if item in known else None for item in candidates], scores)


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise StageError(f"{where}: no JSON ({error}); one object a line") from None
    if not isinstance(value, dict):
        raise StageError(f"{where}: no JSON object; one a line")
    return value
