"""Replies of a teacher as a table: a shard writes those to its slates, and the stage reads all shards in place of asking."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from stages.shared.core.errors import StageError
from stages.shared.core.schemas import Schema, read_table, write_table
from stages.shared.generation.base import Reply, Sampling
from stages.shared.generation.invocations import Invocations
from stages.shared.generation.journal import key_of
from stages.traces.params import SHARDS
from stages.traces.teachers.asking import Question, TokenAsker, invocation

# question: a hash of what was asked and how it was drawn; prompt: as the engine got it, empty unless invocations are kept.
REPLIES: Schema = {
    "slate": pl.Int32,
    "attempt": pl.Int32,
    "question": pl.String,
    "prompt": pl.String,
    "text": pl.String,
    "prompt_tokens": pl.Int32,
    "completion_tokens": pl.Int32,
    "finish": pl.String,
    "seconds": pl.Float64,
}
FILE = "replies.parquet"


class RecordingAsker:
    """Asks `asker`, and keeps the replies as rows of REPLIES."""

    def __init__(self, asker: TokenAsker, keep_prompts: bool):
        self.asker, self.keep_prompts = asker, keep_prompts
        self.rows: list[dict[str, Any]] = []

    def ask(self, questions: Sequence[Question], sampling: Sampling, attempt: int) -> list[Reply]:
        replies = self.asker.ask(questions, sampling, attempt)
        for question, reply in zip(questions, replies, strict=True):
            values = asdict(reply)
            prompt = self.asker.text(question) if self.keep_prompts else ""
            own = {"slate": question.slate, "attempt": attempt, "question": _key(question, sampling), "prompt": prompt}
            self.rows.append(own | {name: values[name] for name in REPLIES if name in values})
        return replies

    def write(self, path: Path) -> None:
        write_table(pl.DataFrame(self.rows, schema=REPLIES), path, REPLIES, may_be_empty=True)


class RecordedAsker:
    """Answers with what the shards wrote. name: of the engine, in the record of what was asked."""

    def __init__(self, shards: Sequence[int], record: Invocations, name: str):
        tables = [read_table(Path(SHARDS) / str(shard) / FILE, REPLIES, may_be_empty=True) for shard in shards]
        self.rows = {(row["question"], row["attempt"]): row for table in tables for row in table.iter_rows(named=True)}
        self.record, self.name = record, name

    def ask(self, questions: Sequence[Question], sampling: Sampling, attempt: int) -> list[Reply]:
        replies, texts = [], []
        for question in questions:
            row = self.rows.get((_key(question, sampling), attempt))
            if row is None:
                raise StageError(
                    f"{SHARDS}: no shard has the reply about slate {question.slate}, try {attempt + 1}; "
                    "they were made of other slates or parameters: gr2 run --force, with the names of all shards"
                )
            texts.append(row["prompt"])
            counts = {name: row[name] for name in ("prompt_tokens", "completion_tokens", "finish", "seconds")}
            replies.append(Reply(row["text"], **counts))
        self.record.add([invocation(*row, attempt, self.name) for row in zip(questions, texts, replies, strict=True)])
        return replies


def _key(question: Question, sampling: Sampling) -> str:
    return key_of([asdict(question), asdict(sampling)])
