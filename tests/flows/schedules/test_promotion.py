"""What a scheduled run says of its new model: proposed with a record and a page, and never a failure of the run."""

from pathlib import Path

import pytest

from flows.schedules.flow import decide_on_promotion, markdown
from tasks.promotion.record import read_decisions
from tasks.run.history import Record
from tests.support import dvc_toy
from tests.support.promotion_project import answers, make, run, slates

RECORD = Record("0190a3f6", "nightly", scheduled="2030-01-01T03:00:00+00:00")


def test_a_new_model_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(dvc_toy.ROOT))
    root = make(tmp_path / "project", max_demotions=0.9)
    run(root, answers(slates(), 3.0), 1, commit=False)
    said = decide_on_promotion(root, RECORD)
    assert (said["headline"], said["decision"]) == ("reranker proposed", "proposed")
    ((path, record),) = read_decisions(root)
    assert str(path.relative_to(root)) == said["record"] and path.with_suffix(".html").exists()
    assert record.by == {"person": "Ada <ada@example.org>", "schedule": "nightly", "flow_run": "0190a3f6"} and not record.tags
    assert "| promotion | reranker proposed |" in markdown(RECORD.ended_as("Completed", "better", promotion=said))
    (root / "dvc.yaml").write_text((root / "dvc.yaml").read_text().replace("reranker:", "other:"))
    assert str(decide_on_promotion(root, RECORD)["headline"]).startswith(
        "nothing was decided on promotion: promote: dvc.yaml has no artifact"
    )


def test_a_project_without_artifacts_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text("{}\n")
    assert decide_on_promotion(tmp_path, RECORD) == {} and not (tmp_path / ".gr2").exists()
