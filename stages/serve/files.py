"""Files of requests, and of answers: JSONL, Parquet, rank_llm's requests and TREC runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from stages.serve.catalogue import IdCatalogue
from stages.serve.parse import BadRequest, check_scores, name_of, rank_request
from stages.serve.requests import RankRequest, RankResult
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import Schema

SOURCE, NUMBER = "source", "number"  # what items are called: the data's own ids, or the pipeline's numbers
OUTPUTS = (".jsonl", ".parquet", ".trec")
TAG = "gr2"  # the name of the run in a TREC file
ANSWERS: Schema = {
    "id": pl.String,
    "order": pl.List(pl.String),
    "index": pl.List(pl.Int64),
    "scores": pl.List(pl.Float64),
    "reasoning": pl.String,
    "fallback": pl.String,
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
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def read_rows(path: Path, first: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows from the number `first` on, with their numbers. StageError names the line that is no JSON object."""
    if path.suffix == ".parquet":
        number = first
        while (part := pl.scan_parquet(path, glob=False).slice(number, 1024).collect()).height:
            yield from enumerate(part.iter_rows(named=True), number)
            number += part.height
        return
    number = 0
    with path.open(encoding="utf-8") as file:
        for line_number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if number >= first:
                yield number, _object(line, f"{path}: line {line_number}")
            number += 1


def file_row(catalogue: IdCatalogue, row: Mapping[str, Any], number: int, ids: str, where: str) -> FileRow:
    """`history` or `user_id`, and `candidates`, perhaps with `scores` and `id`; or rank_llm's `query` and `candidates` with `docid`."""
    candidates, query = row.get("candidates"), row.get("query")
    if not isinstance(candidates, Sequence) or isinstance(candidates, str):
        raise StageError(f"{where}: `candidates` is no list; give the items to rank, best first")
    identity = row.get("id", row.get("slate"))
    if isinstance(query, Mapping):  # rank_llm's
        identity = query.get("qid", identity)
        asked: object = query if {"user_id", "history"} & set(query) else query.get("text", "")
    else:
        asked = query if query is not None else {key: row.get(key) for key in ("history", "user_id")}
    try:
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
    values = (row.id, [row.names[place] for place in order], order, list(result.scores), result.reasoning, result.fallback)
    return dict(zip(ANSWERS, values, strict=True))


def convert(lines: Path, output: Path) -> None:
    """The answers in the file `lines` of JSONL as `output`, by its suffix; `lines` is gone then."""
    if output.suffix == ".jsonl":
        lines.replace(output)
        return
    partial = output.with_name(f".{output.name}.partial")
    if output.suffix == ".parquet":
        pl.scan_ndjson(lines, schema=ANSWERS).sink_parquet(partial)
    else:
        with partial.open("w", encoding="utf-8") as file, lines.open(encoding="utf-8") as read:
            file.writelines(line for text in read for line in _trec(json.loads(text)))
    partial.replace(output)
    lines.unlink()


def _trec(answered: Mapping[str, Any]) -> Iterator[str]:
    """qid Q0 docid rank score tag. Names with blanks in them would be two columns."""
    ranked = zip(answered["order"], answered["scores"], strict=True)
    for rank, (name, score) in enumerate(ranked, 1):
        yield f"{_word(answered['id'])} Q0 {_word(name)} {rank} {score:.6f} {TAG}\n"


def _word(text: str) -> str:
    return "_".join(text.split()) or "_"


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
