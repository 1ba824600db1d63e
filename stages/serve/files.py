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
from stages.serve.formats.text import PACKED, kind, lines
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


def beside(path: Path, ending: str) -> Path:
    """The default name of what is made of the requests in `path`."""
    return path.with_name(path.name.removesuffix(PACKED).removesuffix(kind(path)) + ending)


def check_paths(path: Path, output: Path, topics: Path | None) -> None:
    """StageError where `path` is no file of requests, `topics` none of theirs, or `output` would take the place of something else."""
    if not path.is_file():
        raise StageError(f"{path}: no such file")
    if kind(path) not in INPUTS or path.suffixes[-2:] == [".parquet", PACKED]:
        raise StageError(f"{path}: end its name with .jsonl (one JSON object a line; .gz behind it), .parquet, or .trec (a TREC run)")
    if topics and kind(path) != trec.SUFFIX:
        raise StageError(f"{topics}: topics are of a TREC run, and {path} is none")
    if topics and not topics.is_file():
        raise StageError(f"{topics}: no such file")
    if output.is_dir():
        raise StageError(f"{output}: a folder; name a file")
    if output.exists() and any(output.samefile(one) for one in (path, topics) if one):
        raise StageError(f"{output}: it is what is read; name another file for the answers")


def read_rows(path: Path, first: int, topics: Path | None = None) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Rows from the number `first` on, with their numbers and where they stand. topics: of a TREC run.

    StageError names the line that cannot be read.
    """
    if kind(path) == trec.SUFFIX:
        for number, row in islice(enumerate(trec.read_run(path, topics)), first, None):
            yield number, f"{path}: query {row['id']}", row
        return
    if kind(path) == ".parquet":
        yield from ((number, f"{path}: row {number}", row) for number, row in enumerate(_parquet(path, first), first))
        return
    for number, (line_number, line) in islice(enumerate(lines(path)), first, None):
        where = f"{path}: line {line_number}"
        yield number, where, _object(line, where)


def check_rows(catalogue: IdCatalogue, path: Path, ids: str, topics: Path | None = None) -> int:
    """How many rows there are. StageError names the first one that cannot be read, before anything is asked or written."""
    count = 0
    for number, where, row in read_rows(path, 0, topics):
        file_row(catalogue, row, number, ids, where)
        count += 1
    if not count:
        raise StageError(f"{path}: no rows; give a request a line, or a row")
    return count


def file_row(catalogue: IdCatalogue, row: Mapping[str, Any], number: int, ids: str, where: str) -> FileRow:
    """`history` or `user_id`, and `candidates`, perhaps with `scores` and `id`; or rank_llm's `query` and `candidates` with `docid`."""
    candidates = row.get("candidates")
    if not isinstance(candidates, Sequence) or isinstance(candidates, str | bytes):
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


def convert(answers: Path, output: Path, requests: Path, topics: Path | None = None) -> None:
    """The answers in a file of JSONL as `output`, by its suffix; the file is gone then. requests, topics: what they answer."""
    theirs = output.name.endswith(rank_llm.SUFFIX)
    if output.suffix == ".jsonl" and not theirs:
        answers.replace(output)
        return
    partial = output.with_name(f".{output.name}.partial")
    if output.suffix == ".parquet":
        pl.scan_ndjson(answers, schema=ANSWERS).sink_parquet(partial)
    else:
        with partial.open("w", encoding="utf-8") as file, answers.open(encoding="utf-8") as read:
            rows = map(json.loads, read)
            if theirs:
                asked = (row for _, _, row in read_rows(requests, 0, topics))
                file.writelines(_rank_llm(row, answered) for row, answered in zip(asked, rows, strict=True))
            else:
                file.writelines(line for one in rows for line in trec.run_lines(one["id"], one["order"], one["scores"]))
    partial.replace(output)
    answers.unlink()


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


def _parquet(path: Path, first: int) -> Iterator[Mapping[str, Any]]:
    try:
        while (part := pl.scan_parquet(path, glob=False).slice(first, 1024).collect()).height:
            yield from part.iter_rows(named=True)
            first += part.height
    except Exception as error:  # polars raises many kinds on a damaged file
        raise StageError(f"{path}: not a readable Parquet file ({error}); write it anew") from None


def _object(line: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise StageError(f"{where}: no JSON ({error}); one object a line") from None
    except RecursionError:
        raise StageError(f"{where}: no JSON that can be read (nested too deeply); one object a line") from None
    if not isinstance(value, dict):
        raise StageError(f"{where}: no JSON object; one a line")
    if "\\u" in line:  # the one way to half of a surrogate pair, which no answer could be written with
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise StageError(f"{where}: no text: it holds half of a surrogate pair (\\ud800 to \\udfff); write whole characters") from None
    return value
