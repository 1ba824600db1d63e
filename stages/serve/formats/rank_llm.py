"""rank_llm's JSONL, a request or a result a line: {"query": {"text", "qid"}, "candidates": [{"docid", "score", "doc"}]}, best first.

Source: github.com/castorini/rank_llm, src/rank_llm/data.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.serve.parse import BadRequest

SUFFIX = ".rank_llm.jsonl"


def request(row: Mapping[str, Any]) -> dict[str, Any]:
    """`row` as `gr2 rerank` reads rows. The query is its text, or what `user_id` or `history` beside it say. Scores are those of another
    retriever, so the model is shown the run's own. BadRequest says what is missing."""
    query = row["query"]
    if "qid" not in query:
        raise BadRequest("the query has no `qid`")
    candidates = row["candidates"]
    unnamed = [place for place, one in enumerate(candidates) if not isinstance(one, Mapping) or one.get("docid") is None]
    if unnamed:
        raise BadRequest(f"candidate {unnamed[0]} has no `docid`")
    asked = query if {"user_id", "history"} & set(query) else query.get("text", "")
    return {"id": query["qid"], "query": asked, "candidates": candidates}


def result(row: Mapping[str, Any], order: Sequence[int], scores: Sequence[float]) -> dict[str, Any]:
    """The request `row`, its candidates in the new order with the new scores; all else is as it came. order: places in the request."""
    candidates = [{**row["candidates"][place], "score": score} for place, score in zip(order, scores, strict=True)]
    return {**row, "candidates": candidates}


def is_request(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("query"), Mapping)
