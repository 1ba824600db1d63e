"""The rows of mid-training: each task its share of as many as the run takes, and what did not fit into a row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from stages.midtrain import documents
from stages.midtrain.documents import Document, Wording
from stages.midtrain.ordinary_text import replay_documents
from stages.midtrain.params import MidtrainParams
from stages.shared.core.errors import StageError
from stages.shared.core.progress import note
from stages.shared.lm.encoding import WeightedExample, mixed, packed_rows
from stages.shared.slates import practice
from stages.shared.slates.layouts.layout import Layout

CANDIDATES = 10  # of a made-up slate, at most
VALIDATION_ROWS = 128
JUDGING = "judging"


@dataclass(frozen=True)
class Mixture:
    """rows: task -> rows. too_long: tokens of each judging slate that was left out."""

    rows: dict[str, list[WeightedExample]]
    too_long: list[int]

    @property
    def cut(self) -> dict[str, int]:
        """Task -> documents that lost their end; tasks without any are left out."""
        counts = {task: sum(row.cut > 0 for row in rows) for task, rows in self.rows.items()}
        return {task: count for task, count in counts.items() if count}

    def tell_cuts(self, params: MidtrainParams) -> None:
        """One line with the remedy, where anything was cut or left out that the parameters do not ask for."""
        # Half a paragraph of ordinary text is ordinary text.
        wanted = {"replay", *([JUDGING] if params.cut_slates == "keep" else [])}
        cut = {task: count for task, count in self.cut.items() if task not in wanted}
        if not cut and not self.too_long:
            return
        told = [f"{count} of {task} lost their end" for task, count in cut.items()]
        if self.too_long:
            told.append(f"{len(self.too_long)} judging slates were left out, as they would have lost their answer")
        lengths = [len(row.ids) + row.cut for task in cut for row in self.rows[task]]
        longest = max([*lengths, *self.too_long])
        note(
            f"documents longer than midtrain.row_length: {params.row_length}: {'; '.join(told)}. With row_length: {longest} all of them fit"
        )


def make_mixture(
    params: MidtrainParams,
    layout: Layout,
    wording: Wording,
    base: pl.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    replayed: Sequence[str] = (),
) -> Mixture:
    """Exactly as many rows as the run will take. replayed: paragraphs of ordinary text.

    StageError where no share is above 0, where a row is longer than the model reads, and where nothing of a task fits into a row.
    """
    rng = np.random.default_rng(params.seed)
    sequences = base.group_by("user", maintain_order=True).agg("item")["item"].to_list()
    catalog, history = wording.catalog, layout.options.history
    items = len(catalog.sids)
    # As many SIDs as fit into a row, with one place left for the words around them.
    window = max(2, params.row_length // (len(tokenizer(catalog.sids[0])["input_ids"])) - 1)
    sources: dict[str, tuple[float, Iterator[Document]]] = {
        "sequence": (params.sequence_share, documents.sequence_documents(sequences, catalog, rng, window)),
        "caption": (params.caption_share, documents.caption_documents(wording, items, rng)),
        "preference": (params.preference_share, documents.preference_documents(sequences, wording, rng)),
        "sorting": (params.sorting_share, practice.sorting_documents(layout, items, rng, CANDIDATES)),
        JUDGING: (params.judging_share, practice.judging_documents(layout, items, rng, history, CANDIDATES)),
    }
    if params.persona_share:
        sources["persona"] = (params.persona_share, documents.persona_documents(sequences, wording, rng))
    if params.replay_share:
        sources["replay"] = (params.replay_share, replay_documents(replayed, rng))
    if sum(share for share, _ in sources.values()) <= 0:
        raise StageError("params.yaml: midtrain: all shares are 0; give at least one of " + ", ".join(f"{task}_share" for task in sources))
    counts = apportioned([share for share, _ in sources.values()], params.rows_taken)
    rows: dict[str, list[WeightedExample]] = {}
    too_long: list[int] = []
    for (task, (_, source)), count in zip(sources.items(), counts, strict=True):
        refused = too_long if task == JUDGING and params.cut_slates == "drop" else None
        rows[task] = packed_rows(source, count, params.row_length, tokenizer, portion=8, too_long=refused)
        _check_something_is_left(task, rows[task], count, params, too_long)
    longest = max(len(row.ids) for task_rows in rows.values() for row in task_rows)
    if longest > params.max_length:
        raise StageError(f"params.yaml: midtrain.max_length {params.max_length} is less than the longest row, {longest} tokens")
    return Mixture(rows, too_long)


def apportioned(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers in proportion to `shares` that sum to `total`: rounded down, and the largest remainders up (Hamilton's method)."""
    exact = [share / sum(shares) * total for share in shares]
    counts = [int(quota) for quota in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: (counts[place] - exact[place], place))
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


def held_out_rows(
    params: MidtrainParams,
    layout: Layout,
    wording: Wording,
    later: pl.DataFrame,
    base: pl.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    kept_back: Sequence[str],
) -> list[WeightedExample]:
    """VALIDATION_ROWS at most, and no more than are trained on, in the same mixture: of users' later interactions, of text kept back, and
    of exercises drawn from another seed."""
    # Where nobody has two later ones, base has to serve.
    source = later if (later.group_by("user").len()["len"] > 1).any() else base
    count = min(VALIDATION_ROWS, params.rows_taken)
    other = {"seed": params.seed + 2, "steps": count, "batch_size": 1, "accumulate": 1, "processes": 1, "nodes": 1}
    return mixed(make_mixture(params.model_copy(update=other), layout, wording, source, tokenizer, kept_back).rows, params.seed)


def _check_something_is_left(
    task: str, rows: Sequence[WeightedExample], count: int, params: MidtrainParams, too_long: Sequence[int]
) -> None:
    """Of what counts in the loss, where the task was to have rows at all."""
    if not count or any(weight for row in rows for weight in row.weights):
        return
    lengths = [len(row.ids) + row.cut for row in rows] or too_long
    raise StageError(
        f"params.yaml: midtrain.row_length: {params.row_length} leaves nothing to learn of {task}, whose documents here have "
        f"{min(lengths)} tokens and more; raise row_length, or set {task}_share: 0"
    )
