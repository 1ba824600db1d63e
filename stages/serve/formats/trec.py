"""TREC runs, `qid Q0 docid rank score tag` a line, as trec_eval, pyserini and rank_llm read and write them; and topics, `qid TAB query`.

trec_eval orders the documents of a query by their score, as a 32-bit float and whatever the rank says, ties by docid from Z to A, and
refuses a document that comes twice (github.com/usnistgov/trec_eval, form_res_rels.c).
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.serve.formats.text import lines
from stages.serve.requests import falling
from stages.shared.core.errors import StageError

SUFFIX = ".trec"
TAG = "gr2"  # the name of the run
COLUMNS = 6


def read_run(path: Path, topics: Path | None = None) -> Iterator[dict[str, Any]]:
    """A row a query, in the order of the file, as `gr2 rerank` reads rows: its documents by rank. The query is that of `topics`, else the
    qid is the id of a user. StageError names the line that is none of a run, and the query whose lines are not together."""
    asked = read_topics(topics) if topics else {}
    seen: set[str] = set()
    for qid, ranked in _queries(path):
        if qid in seen:
            raise StageError(f"{path}: the lines of the query {qid} do not stand together; sort the file by query, then by rank")
        seen.add(qid)
        if topics and qid not in asked:
            raise StageError(f"{topics}: no line for the query {qid} of {path}")
        ranks = [rank for rank, _ in ranked]
        if len(set(ranks)) < len(ranks):
            raise StageError(f"{path}: the query {qid} has two documents of one rank; number them from the best on")
        candidates = [docid for _, docid in sorted(ranked)]
        yield {"id": qid, "query": asked.get(qid, f"user:{qid}"), "candidates": candidates}


def read_topics(path: Path) -> dict[str, str]:
    """qid -> query. StageError names the line without a tab, or with a qid that had a line before."""
    topics: dict[str, str] = {}
    for number, line in lines(path):
        qid, tab, query = line.partition("\t")
        if not tab or qid.strip() in topics:
            fault = "the same query again" if tab else "no tab between the id of the query and its text"
            raise StageError(f"{path}: line {number}: {fault}")
        topics[qid.strip()] = query.strip()
    return topics


def run_lines(qid: str, names: Sequence[str], scores: Sequence[float]) -> Iterator[str]:
    """Of one query, best first. Where scores would not give this order back to trec_eval, they are those that say an order alone."""
    first = dict(zip(reversed(list(map(word, names))), reversed(scores), strict=True))  # of a document that comes twice, the better place
    kept = [(name, first.pop(name)) for name in map(word, names) if name in first]
    narrow = np.array([score for _, score in kept], dtype=np.float32)
    written = [score for _, score in kept] if bool((np.diff(narrow) < 0).all()) else falling(len(kept))
    for rank, ((name, _), score) in enumerate(zip(kept, written, strict=True), 1):
        yield f"{word(qid)} Q0 {name} {rank} {score!r} {TAG}\n"


def word(text: str) -> str:
    """Blanks would be further columns."""
    return "_".join(text.split()) or "_"


def _queries(path: Path) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """The id of each query, and rank and docid of its lines, where they stand together."""
    qid, ranked = "", list[tuple[int, str]]()
    for number, line in lines(path):
        parts = line.split()
        where = f"{path}: line {number}"
        if len(parts) != COLUMNS:
            raise StageError(f"{where}: {len(parts)} columns; a TREC run has {COLUMNS}: qid Q0 docid rank score tag")
        rank, score = _number(parts[3]), _number(parts[4])
        if rank is None or rank != int(rank) or score is None:
            raise StageError(f"{where}: rank '{parts[3]}' and score '{parts[4]}': a whole number and a number are expected")
        if ranked and parts[0] != qid:
            yield qid, ranked
            ranked = []
        qid = parts[0]
        ranked.append((int(rank), parts[2]))
    if ranked:
        yield qid, ranked


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
