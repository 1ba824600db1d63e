"""`python -m stages.serve.rerank FILE`, which is `gr2 rerank`: a file of histories and candidates in, a file of orders out."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from stages.evaluate.params import EvaluateParams
from stages.serve.catalogue import IdCatalogue
from stages.serve.files import NUMBER, OUTPUTS, SOURCE, FileRow, answer, beside, check_paths, check_rows, convert, file_row, read_rows
from stages.serve.modes import ADAPTIVE_MARGIN, Mode, add_mode_options, check_folder
from stages.serve.reranker import MODEL, Reranker, open_reranker
from stages.shared.core.errors import StageError
from stages.shared.core.hashes import files_sha256
from stages.shared.core.outputs import DATA
from stages.shared.core.params import load_params
from stages.shared.core.progress import Progress, note
from stages.shared.core.run import set_seed, set_threads, without_library_bars
from stages.shared.generation.resumable import folder_sha256

T = TypeVar("T")
TABLES = [Path("params.yaml"), *(DATA / name for name in ("ingest/interactions.parquet", "retrieve/candidate_features.parquet"))]
TABLES += [DATA / "tokenize/sids.parquet"]
BATCH = 512  # rows between two entries in the partial output: what a kill can lose


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="gr2 rerank", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL)
    add_mode_options(parser)
    parser.add_argument("--ids", choices=(SOURCE, NUMBER), default=SOURCE)
    parser.add_argument("--topics", type=Path)
    parser.add_argument("--batch", type=int, default=BATCH)
    options = parser.parse_args(arguments)
    output = options.output or beside(options.file, ".reranked.jsonl")
    try:
        counts = rerank_file(
            options.file,
            output,
            options.model,
            options.mode,
            options.ids,
            max(1, options.batch),
            options.topics,
            options.one_pass_model,
            options.margin,
        )
    except (StageError, OSError) as error:  # a full disk, or a folder that nobody may write to
        sys.exit(f"gr2 rerank: {error}")
    fallbacks = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()) if reason)
    note(f"{output}: {counts.total()} rows, {counts['']} reranked" + (f"; in the order given: {fallbacks}" if fallbacks else ""))


def rerank_file(
    path: Path,
    output: Path,
    model: Path,
    mode: Mode,
    ids: str,
    batch: int,
    topics: Path | None = None,
    one_pass: Path | None = None,
    margin: float = ADAPTIVE_MARGIN,
) -> Counter[str]:
    """Writes `output`, whole or not at all; how many rows fell back, by reason ("" = none). What a killed call wrote is gone on from.

    topics: of a TREC run (stages/serve/formats/trec.py). one_pass, margin: of mode adaptive, see open_reranker.
    """
    if output.suffix not in OUTPUTS:
        raise StageError(f"{output}: what shall it be? End its name with {', '.join(OUTPUTS)}")
    check_paths(path, output, topics)
    for folder in (model, one_pass) if one_pass else (model,):
        check_folder(folder)
    params = load_params("evaluate", EvaluateParams)
    set_threads(params.threads)
    set_seed(params.seed)
    without_library_bars()
    partial = output.with_name(f".{output.name}.partial.jsonl")
    # The batch is a part of it: which rows share one changes the last bits of sums.
    identity = f"{files_sha256([path, *([topics] if topics else []), *TABLES])} {folder_sha256(model)} {mode} {ids} {batch}"
    if mode == "adaptive":
        identity += f" {folder_sha256(one_pass or model)} {margin}"
    count = check_rows(IdCatalogue.read(), path, ids, topics)
    done, counts = _begin(partial, identity, batch)
    with Progress("rows", count, done) as progress, open_reranker(model, mode, None, one_pass, margin) as reranker:
        for rows in _batches(_rows(reranker, path, done, ids, topics), batch):
            counts.update(_write(reranker, rows, partial))
            progress.add(len(rows))
    convert(partial, output, path, topics)
    _state(partial).unlink()  # not before: a kill in between would cost all that was asked
    return counts


def _begin(partial: Path, identity: str, batch: int) -> tuple[int, Counter[str]]:
    """How many rows an earlier call of the same request wrote, in whole batches, and their fallbacks."""
    state = _state(partial)
    lines = []
    if partial.exists() and state.exists() and state.read_text(encoding="utf-8") == identity:
        lines = [line for line in partial.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        lines = lines[: len(lines) // batch * batch]
        if lines:
            note(f"{partial}: {len(lines)} rows of an earlier run are kept")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(b"".join(lines))
    state.write_text(identity, encoding="utf-8")
    return len(lines), Counter(json.loads(line)["fallback"] for line in lines)


def _state(partial: Path) -> Path:
    """What the partial output is of."""
    return partial.with_suffix(".state")


def _rows(reranker: Reranker, path: Path, first: int, ids: str, topics: Path | None) -> Iterator[FileRow]:
    for number, where, row in read_rows(path, first, topics):
        yield file_row(reranker.catalogue, row, number, ids, where)


def _batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch


def _write(reranker: Reranker, rows: list[FileRow], partial: Path) -> list[str]:
    results = reranker.rank([row.request for row in rows])
    text = "".join(json.dumps(answer(row, result), ensure_ascii=False) + "\n" for row, result in zip(rows, results, strict=True))
    with partial.open("ab") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    return [result.fallback for result in results]


if __name__ == "__main__":
    main()
