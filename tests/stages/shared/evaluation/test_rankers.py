"""Which models a run measures follows from what the stage `distil` made."""

from pathlib import Path

import pytest

from stages.distil.params import DistilParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import write_json
from stages.shared.evaluation.rankers import CONTRASTS, DISTILLED, MODELS, contrasts_of, distilled, models


def made_by(mode: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "data/distil").mkdir(parents=True)
    write_json(folder / "data/distil/metrics.json", {"mode": mode})


@pytest.mark.parametrize(
    ("mode", "rankers"),
    [
        ("none", {}),
        ("on_policy", {"distil": True}),
        ("answer_only", {"distil": False}),
        ("race", {"distil": True, "distil_direct": False}),
    ],
)
def test_a_distilled_model_is_measured_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, rankers: dict[str, bool]
) -> None:
    made_by(mode, tmp_path, monkeypatch)
    assert distilled() == rankers
    assert list(models()) == ["sft", *rankers, "rl", "quantized"] and models().items() >= MODELS.items()
    assert {models()[name] for name in rankers} <= {Path("data/distil/model")}
    contrasts = contrasts_of(["incoming", "lambdamart", "fusion", *models()])
    assert contrasts[: len(CONTRASTS)] == CONTRASTS
    assert {name for pair in contrasts for name in pair} >= set(rankers) and (contrasts == CONTRASTS) == (mode == "none")


def test_every_mode_says_what_is_measured() -> None:
    assert set(DISTILLED) == set(DistilParams.model_fields["mode"].annotation.__args__)  # type: ignore[union-attr]


def test_the_metrics_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_by("melting", tmp_path, monkeypatch)
    with pytest.raises(StageError, match=r"distil/metrics\.json: .*rerun: gr2 run distil"):
        models()
