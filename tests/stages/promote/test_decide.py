"""Planted candidates against planted champions: the verdict of every gate, and that none passes unseen."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stages.promote.checks import COULD_NOT_RUN, FAILED, PASSED, GateResult
from stages.promote.decide import decide
from stages.promote.params import PromoteParams
from stages.shared.evaluation.outputs_table import FREE, RESERVED
from tests.support.promotion_project import CANDIDATES, MODEL, answers, of_orders, plant, slates, with_faults, write_metrics, write_model

TABLE = slates()
PARAMS = PromoteParams(resamples=1000, max_demotions=0.9)


@pytest.fixture
def champion(tmp_path: Path) -> Path:
    return plant(tmp_path / "champion", answers(TABLE, 1.5), TABLE)


def checks_of(
    tmp_path: Path, champion: Path | None, rows: pl.DataFrame, params: PromoteParams = PARAMS, **planted: object
) -> dict[str, GateResult]:
    folder = plant(tmp_path / "candidate", rows, seed=1, **planted)  # type: ignore[arg-type]
    return {check.name: check for check in decide(folder, champion, MODEL, params)}


def refusals(checks: dict[str, GateResult]) -> dict[str, str]:
    return {name: check.verdict for name, check in checks.items() if check.verdict != PASSED}


def test_a_better_one_passes_every_check(tmp_path: Path, champion: Path) -> None:
    checks = checks_of(tmp_path, champion, answers(TABLE, 2.5))
    assert refusals(checks) == {} and len(checks) == 12
    assert checks["difference"].sentence.startswith("superior: ndcg@5 +0.")
    assert checks["difference"].evidence["slates"] == TABLE.height


def test_an_equal_one_passes_unless_it_must_be_superior(tmp_path: Path, champion: Path) -> None:
    checks = checks_of(tmp_path, champion, answers(TABLE, 1.5))
    assert refusals(checks) == {} and checks["difference"].evidence["diff"] == 0
    superior = PARAMS.model_copy(update={"require": "superior"})
    assert refusals(checks_of(tmp_path, champion, answers(TABLE, 1.5), superior)) == {"difference": FAILED}


def test_a_worse_one_fails_by_its_difference(tmp_path: Path, champion: Path) -> None:
    checks = checks_of(tmp_path, champion, answers(TABLE, 0.8))
    assert checks["difference"].verdict == FAILED and checks["difference"].sentence.startswith("worse: ndcg@5 -0.")
    assert checks["difference"].evidence["high"] < 0


def test_one_that_is_worse_within_the_margin_passes(tmp_path: Path, champion: Path) -> None:
    wide = PARAMS.model_copy(update={"margin": 0.4, "max_regressions": 0.9, "max_slice_loss": 0.9})
    checks = checks_of(tmp_path, champion, answers(TABLE, 0.8), wide)
    assert refusals(checks) == {} and checks["difference"].evidence["high"] < 0


def test_equal_on_average_and_broken_for_many_fails_by_its_flips(tmp_path: Path, champion: Path) -> None:
    """The same skill with other noise: as many become right as become wrong."""
    checks = checks_of(tmp_path, champion, answers(TABLE, 1.5, seed=5), PARAMS.model_copy(update={"margin": 0.2}))
    assert refusals(checks) == {"right to wrong": FAILED}
    lost, won = (checks["right to wrong"].evidence[name] for name in ("right_to_wrong", "wrong_to_right"))
    assert 0.7 < lost / won < 1.4 and lost > 0.1 * TABLE.height


def test_better_on_average_and_worse_for_one_slice_fails_by_it(tmp_path: Path, champion: Path) -> None:
    better, worse = answers(TABLE, 4.0), answers(TABLE, 0.0)
    short = (TABLE["position"] <= TABLE["position"].quantile(0.25)).to_list()
    rows = pl.concat([(worse if is_short else better)[place] for place, is_short in enumerate(short)])
    checks = checks_of(tmp_path, champion, rows, PARAMS.model_copy(update={"max_regressions": 0.9}))
    assert refusals(checks) == {"slices": FAILED} and checks["difference"].evidence["low"] > 0
    harmed = [row for row in checks["slices"].evidence["slices"] if row["net_loss"] > 0.05]
    assert [row["slice"] for row in harmed] == [f"history of {TABLE['position'].min()} to {int(TABLE['position'].quantile(0.25))}"]


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (of_orders(TABLE, np.tile(np.arange(CANDIDATES), (TABLE.height, 1))), "copies of the initial ranking"),
        (with_faults(answers(TABLE, 3.0), 0.04), "invalid answers"),
        (answers(TABLE, -1.0), "demotions of the target"),
    ],
)
def test_harm_fails_by_its_upper_bound(tmp_path: Path, rows: pl.DataFrame, name: str) -> None:
    """Without a champion the initial ranking stands in for it: copies are no worse, and no use."""
    check = checks_of(tmp_path, None, rows, PromoteParams(resamples=1000))[name]
    assert check.verdict == FAILED and check.evidence["upper_bound"] > check.evidence["limit"]


def test_few_slates_show_no_small_rate(tmp_path: Path) -> None:
    """No invalid answer among 40 of 10 users is no proof that they are below 2 %."""
    few = TABLE[:40]
    check = checks_of(tmp_path, None, answers(few, 3.0), table=few)["invalid answers"]
    assert check.verdict == FAILED and check.evidence["rate"] == 0 and check.evidence["upper_bound"] > 0.1


def test_invalid_answers_are_counted_where_nothing_hides_them(tmp_path: Path, champion: Path) -> None:
    """Under the constraint every answer is a permutation; the free ones say how it would be without."""
    rows = pl.concat([answers(TABLE, 2.5), with_faults(answers(TABLE[:200], 2.5, kind=FREE), 0.3)])
    checks = checks_of(tmp_path, champion, rows)
    assert refusals(checks) == {"invalid answers": FAILED} and checks["invalid answers"].evidence["rate"] == pytest.approx(0.3)


def test_reserved_slates_alone_decide(tmp_path: Path) -> None:
    """The reported ones look splendid; the candidate is worse where nobody looked."""
    reported, kept = TABLE[:300], TABLE[300:]
    folder = plant(tmp_path / "champion", pl.concat([answers(reported, 1.5), answers(kept, 1.5, kind=RESERVED)]), TABLE)
    rows = pl.concat([answers(reported, 9.0), answers(kept, 0.5, kind=RESERVED)])
    checks = checks_of(tmp_path, folder, rows)
    assert checks["difference"].verdict == FAILED and checks["difference"].evidence["slates"] == 300
    assert "kept from every report" in checks["same slates"].sentence
    mixed = checks_of(tmp_path, folder, answers(TABLE, 9.0))
    assert "only the champion was evaluated with evaluate.promotion_users" in mixed["same slates"].sentence


OTHER = slates(seed=3)


def broken_order(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.lit([0] * CANDIDATES, dtype=pl.List(pl.Int64)).alias("order"))


@pytest.mark.parametrize(
    ("rows", "planted", "name", "words"),
    [
        (answers(TABLE, 9.0), {"bad": float("nan")}, "weights", "model.embed_tokens.weight has 1 values that are NaN or infinite"),
        (answers(TABLE, 9.0), {"bad": float("inf"), "dtype": "BF16"}, "weights", "model.embed_tokens.weight has 1 values"),
        (answers(TABLE, 9.0), {"height": 16}, "vocabulary", "ids up to 19, and the embedding 16 rows: wrong vocabulary"),
        (answers(TABLE, 9.0), {"codes": 5}, "vocabulary", "lacks 1 tokens of the catalogue's SIDs (<s_a_7>): wrong vocabulary"),
        (answers(OTHER, 9.0), {"table": OTHER}, "same slates", "different slates: the champion answered 600 and the candidate 600"),
        (answers(TABLE, 9.0), {"table": OTHER}, "same slates", "different slates"),
        (answers(TABLE[:599], 9.0), {}, "same slates", "different slates: the champion answered 600 and the candidate 599, of which 599"),
        (answers(TABLE, 9.0, model="sft"), {}, "same slates", "no answers of the model 'rl'"),
        (answers(TABLE, 9.0).with_columns(pl.lit(None, pl.Int32).alias("new_rank")), {}, "same slates", "of 'rl' have no new_rank"),
        (answers(TABLE, 1.0).with_columns(pl.lit(0, pl.Int32).alias("new_rank")), {}, "same slates", "its own orders contradict"),
        (broken_order(answers(TABLE, 9.0)), {}, "same slates", "is not a permutation of its 10 candidates"),
        (answers(TABLE, 9.0).drop("fault"), {}, "same slates", "without the column 'fault'"),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_not_promoted(
    tmp_path: Path, champion: Path, rows: pl.DataFrame, planted: dict[str, object], name: str, words: str
) -> None:
    """However good the answers look."""
    checks = checks_of(tmp_path, champion, rows, **planted)
    assert refusals(checks)[name] == COULD_NOT_RUN and words in checks[name].sentence


def nan_in_metrics(root: Path) -> None:
    (root / "data/rl/metrics.json").write_text('{"loss": {"last": NaN}}')


def no_metrics(root: Path) -> None:
    (root / "data/evaluate/metrics.json").unlink()


def another_model(root: Path) -> None:
    write_model(root / MODEL, seed=9)


def cut_short(root: Path) -> None:
    file = root / MODEL / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])


def unsaid_gate(root: Path) -> None:
    write_metrics(root, gate={"verdict": "perhaps"})


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (nan_in_metrics, "metrics", "data/rl/metrics.json: loss.last is not a finite number"),
        (no_metrics, "metrics", "data/evaluate/metrics.json: missing; run the stage that makes it: gr2 run evaluate"),
        (another_model, "evaluated", "stale: the evaluation read another data/rl/model than there is now"),
        (cut_short, "weights", "the copy was cut short"),
        (unsaid_gate, "quantized model", "gate: neither passed nor failed ('perhaps')"),
    ],
)
def test_a_run_that_is_not_whole(tmp_path: Path, champion: Path, change: Callable[[Path], None], name: str, words: str) -> None:
    folder = plant(tmp_path / "candidate", answers(TABLE, 9.0), TABLE, seed=1)
    change(folder)
    checks = {check.name: check for check in decide(folder, champion, MODEL, PARAMS)}
    assert refusals(checks)[name] == COULD_NOT_RUN and words in checks[name].sentence


@pytest.mark.parametrize(
    ("gate", "verdict"), [("failed", FAILED), ({"passed": False}, FAILED), ({"verdict": "passed"}, PASSED), (True, PASSED)]
)
def test_the_quantized_models_gate_counts(tmp_path: Path, champion: Path, gate: object, verdict: str) -> None:
    folder = plant(tmp_path / "candidate", answers(TABLE, 9.0), TABLE, seed=1)
    (folder / "data/quantize").mkdir()
    (folder / "data/quantize/metrics.json").write_text(json.dumps({"gate": gate}))
    assert {check.name: check.verdict for check in decide(folder, champion, MODEL, PARAMS)}["quantized model"] == verdict


def test_one_user_is_no_interval(tmp_path: Path) -> None:
    alone = TABLE.filter(pl.col("user") == 0)
    checks = checks_of(tmp_path, None, answers(alone, 3.0), table=alone)
    assert checks["difference"].verdict == COULD_NOT_RUN and "an interval needs two users" in checks["difference"].sentence
