"""The table of kept rollouts; without torch, so that `gr2 rollouts` reads it in a moment."""

import polars as pl

from stages.shared.core.schemas import Schema

# One row an answer, sorted by step, process, group and sample. step: from 1, the one that learnt from it, or that drew it where none did.
# shown, order: initial ranks (from 0) in the order of the prompt, and of the answer; order and new_rank: null where it is no permutation.
# fault: "", one of answers.Answer, or "contradicts". parts: of the reward, unweighted. learnt: whether the update was computed from its
# group; advantage: null where it was not, for objectives that have none, and under credit: relevance. tokens: of the completion.
ROLLOUTS: Schema = {
    "step": pl.Int32,
    "process": pl.Int32,
    "group": pl.Int32,
    "sample": pl.Int32,
    "slate": pl.Int32,
    "prompt": pl.String,
    "completion": pl.String,
    "shown": pl.List(pl.Int32),
    "order": pl.List(pl.Int32),
    "target_rank": pl.Int32,
    "new_rank": pl.Int32,
    "fault": pl.String,
    "parts": pl.List(pl.Struct({"name": pl.String, "value": pl.Float64})),
    "reward": pl.Float64,
    "learnt": pl.Boolean,
    "advantage": pl.Float64,
    "tokens": pl.Int32,
}
