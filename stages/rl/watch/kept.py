"""Rollouts that are kept, for `gr2 rollouts`: data/rl/rollouts.parquet, a row an answer, a share of the groups of every step.

Each step of each process is a file in a folder that outlives a killed run; at the end they become one table. Of several nodes the first
one's processes are in it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from stages.rl.params import RlParams
from stages.rl.rollouts import Group, Rollouts
from stages.rl.watch.rollouts_table import ROLLOUTS
from stages.shared.core.launch import rank
from stages.shared.core.schemas import read_table, write_table


class KeptRollouts:
    """folder: of the parts. share: rl.keep_rollouts; which groups are taken depends on seed, step and process alone."""

    def __init__(self, folder: Path, tokenizer: PreTrainedTokenizerBase, params: RlParams):
        self.folder, self.tokenizer, self.params = folder, tokenizer, params

    def add(self, step: int, rollouts: Rollouts, advantages: Mapping[int, Sequence[float]]) -> None:
        """Of step `step`, from 1. advantages: id of a group -> of its answers; a group without is one that nothing was learnt from.

        A group that waits for the next step is written there, or in the last step if there is none.
        """
        learnt = {id(group) for group in rollouts.kept}
        # PROF learns from some answers of a group; the others of it are not written.
        written = {id(group.drawn or group) for group in [*rollouts.kept, *(rollouts.surplus if step < self.params.steps else [])]}
        groups = [*rollouts.kept, *(group for group in rollouts.sampled if id(group) not in written)]
        taken = np.random.default_rng([self.params.seed, 8, step, rank()]).random(len(groups)) < self.params.keep_rollouts
        rows = [
            row
            for number, group in enumerate(groups)
            if taken[number]
            for row in self._rows(step, number, group, id(group) in learnt, advantages.get(id(group)))
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_table(pl.DataFrame(rows, schema=ROLLOUTS, orient="row"), self._part(step), ROLLOUTS, may_be_empty=True)

    def _rows(self, step: int, number: int, group: Group, learnt: bool, advantages: Sequence[float] | None) -> list[dict[str, Any]]:
        task, rows = group.task, []
        prompt = self._text(task.prompt)
        for sample, (completion, answer, reward) in enumerate(zip(group.completions, group.answers, group.rewards, strict=True)):
            order = answer.order
            rows.append(
                {
                    "step": step,
                    "process": rank(),
                    "group": number,
                    "sample": sample,
                    "slate": task.slate,
                    "prompt": prompt,
                    "completion": self._text(completion.token_ids),
                    "shown": list(task.shown),
                    "order": None if order is None else list(order),
                    "target_rank": task.target_rank,
                    "new_rank": None if order is None else order.index(task.target_rank),
                    "fault": answer.fault,
                    "parts": [{"name": name, "value": values[sample]} for name, values in group.parts.items()],
                    "reward": reward,
                    "learnt": learnt,
                    "advantage": None if advantages is None else float(advantages[sample]),
                    "tokens": len(completion.token_ids),
                }
            )
        return rows

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _part(self, step: int) -> Path:
        return self.folder / f"rollouts-{step:06d}-{rank():04d}.parquet"

    def write(self, path: Path) -> None:
        """The main process, when every process has added its last step. Without rl.keep_rollouts an empty table: dvc.yaml names it."""
        tables = [read_table(part, ROLLOUTS, may_be_empty=True) for part in sorted(self.folder.glob("rollouts-*.parquet"))]
        write_table(pl.concat(tables) if tables else pl.DataFrame(schema=ROLLOUTS), path, ROLLOUTS, may_be_empty=True)
