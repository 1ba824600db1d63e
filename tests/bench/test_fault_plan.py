"""Which faults the campaign does, and how its table counts those of a series."""

import random
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))  # last: bench/tokenizers.py must not hide the package of that name

import fault_writes
from fault_kinds import CONTROL, KINDS, series
from fault_table import table
from faults import plan

from tests.support.project_clone import STAGES

SMOKE = [kind for kind in KINDS if "smoke" in kind.where]


def test_every_kind_at_every_stage_and_all_stages_soon() -> None:
    trials = plan(STAGES, SMOKE, len(SMOKE) * len(STAGES))
    controls, faults = trials[: len(STAGES)], trials[len(STAGES) :]
    assert {(kind, stage) for _, kind, stage in controls} == {(CONTROL, stage) for stage in STAGES}
    assert len({(kind.name, stage) for _, kind, stage in faults}) == len(SMOKE) * len(STAGES) == len(faults)
    assert {stage for _, _, stage in faults[: len(STAGES)]} == set(STAGES), "a campaign that is stopped soon has struck them all"


def test_a_series_strikes_runs_that_only_restore() -> None:
    drawn = series(random.Random(3), SMOKE, 40)
    assert len(drawn) == 40 and all(kind.again and kind.changed and not kind.own_server for kind in drawn)


def test_an_order_to_kill_holds_for_one_run(tmp_path: Path) -> None:
    (tmp_path / ".gr2").mkdir()
    (tmp_path / ".gr2" / "cut.done").write_text("7\n")
    fault_writes.order("dvc.lock")(tmp_path, "a", random.Random(3))
    assert (tmp_path / ".gr2" / "cut").read_text().endswith(" /dvc.lock\n")
    assert fault_writes.struck(tmp_path, lambda: True, 1) == 0, "that of the run before"
    fault_writes.forget(tmp_path)
    assert list((tmp_path / ".gr2").iterdir()) == []


def test_the_table_counts_every_fault_of_a_series() -> None:
    line = {
        "project": "smoke",
        "seed": 5,
        "trial": 0,
        "stage": "rl",
        "hit": "rl",
        "outcome": "recovered",
        "violations": [],
        "recovery_s": 9.0,
    }
    more = [{"kind": "killed inside a write: dvc.lock", "hit": "process 7 killed"}, {"kind": "full disk", "hit": "disk full"}]
    text = table([{**line, "kind": "full disk", "more": more}, {**line, "trial": 1, "kind": "full disk", "more": []}], [])
    assert "4 faults in 2 trials, 0 trials with a violation" in text and "1 of the faults were inside a write" in text
    assert "In 1 trials several runs were struck" in text
    assert "| smoke | full disk | 3 | 0 | 3 | 0 |" in text and "| smoke | killed inside a write: dvc.lock | 1 | 0 | 1 | 0 |" in text
    assert "by the stage that had to run: rl 4." in text
