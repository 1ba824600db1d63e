"""Distillation between sft and rl, off by default. Three modes, one file each:

- on_policy (on_policy.py): the student's own rollouts, towards the distributions of a teacher of the same vocabulary;
- answer_only (answer_rows.py): the answers that a reasoning model comes to, given at once;
- race (answer_rows.py): half of the rows with thoughts, half without, in one training.

rl starts from what rl.start names, by default the SFT model: with mode none nothing is copied or hashed a second time, no content has two
makers in the lineage, and rl does not wait. A distilled model goes into rl with rl.start: data/distil/model; it may as well be learnt from
data/rl/model, as the last step of all.
"""

import sys
from multiprocessing import get_context

from stages.distil.metrics import DistilMetrics
from stages.distil.params import DistilParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import Outputs
from stages.shared.core.run import EXTRAS, importing, set_seed, set_threads


def distil(params: DistilParams, outputs: Outputs) -> None:
    """Writes model, loss.csv and metrics.json. Mode none: an empty folder, a curve without rows, and the mode."""
    if not params.trains:
        outputs.path("model").mkdir()
        outputs.path("loss.csv").write_text("step,loss,lr\n", encoding="utf-8")
        outputs.metrics({"mode": "none"}, DistilMetrics)
        return
    with importing(EXTRAS):
        from stages.distil.modes import learn  # torch takes seconds, and mode none needs none of it

    begin(params)
    learn(params, outputs)


def prepare(params: DistilParams) -> None:
    """Before several processes start: bad folders are told once, and the reasoning model is asked once, not by each of them.

    In a process of its own, so that what it holds of a GPU is free again when the others start.
    """
    process = get_context("spawn").Process(target=_prepare, args=(params,))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(1)


def _prepare(params: DistilParams) -> None:
    with importing(EXTRAS):
        from stages.distil.modes import look_ahead

    begin(params)
    try:
        look_ahead(params)
    except StageError as error:
        sys.exit(f"distil: {error}")


def begin(params: DistilParams) -> None:
    """As run_stage did before torch was there."""
    set_threads(params.threads)
    set_seed(params.seed)
