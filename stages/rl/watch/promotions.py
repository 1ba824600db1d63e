"""Where the policy moves the target: promotions.csv has, of each step, how many valid answers move it from which rank to which."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stages.rl.policy import all_max, all_sums
from stages.rl.rollouts import Group

Moves = list[tuple[int, int, int, int]]  # step, rank before, rank after (both from 0), answers


def moves_of(step: int, groups: Sequence[Group]) -> Moves:
    """Over the groups of all processes; every one calls it."""
    counts = Counter(
        (group.task.target_rank, answer.order.index(group.task.target_rank))
        for group in groups
        for answer in group.answers
        if answer.order is not None
    )
    size = round(all_max(float(max((len(group.task.shown) for group in groups), default=0))))
    cells = [(before, after) for before in range(size) for after in range(size)]
    totals = all_sums([float(counts[cell]) for cell in cells])
    return [(step, *cell, round(total)) for cell, total in zip(cells, totals, strict=True) if total]


def write_rows(path: Path, header: str, rows: Sequence[Sequence[int]]) -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
