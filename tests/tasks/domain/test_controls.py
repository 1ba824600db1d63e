"""A control's file, its parameters laid over params.yaml, and the verdict."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.domain.controls import Control, control_names, judge_control, params_under, read_control
from tasks.system.errors import ProjectError

ROOT = Path(__file__).resolve().parents[3]
CONTROL = Control("noise", "no gain", {"rl": {"reward": "random"}}, (("rl", "sft"), ("rl", "incoming")))


def metrics(root: Path, **own: Any) -> None:
    """Metrics in which rl stands `low` to `high` above both."""
    values = {"n": 30, "diff": 0.01, "low": -0.01, "high": 0.03, **own}
    difference = {"ndcg@5": {"diff": values["diff"], "diff_ci": [values["low"], values["high"]]}}
    (root / "data/report").mkdir(parents=True, exist_ok=True)
    document = {"models": {"rl": {"n": values["n"], **difference}}, "contrasts": {"rl-sft": difference}}
    (root / "data/report/metrics.json").write_text(json.dumps(document))


@pytest.mark.parametrize(("low", "high", "passed"), [(-0.01, 0.03, True), (0.0, 0.03, True), (0.001, 0.03, False), (-0.04, -0.01, True)])
def test_verdict(tmp_path: Path, low: float, high: float, passed: bool) -> None:
    metrics(tmp_path, low=low, high=high)
    verdict = judge_control(tmp_path, CONTROL)
    assert verdict.passed is passed and [own.gain for own in verdict.comparisons] == [not passed, not passed]
    assert json.loads(verdict.to_json())["comparisons"][1] == {
        "model": "rl", "against": "incoming", "n": 30, "diff": 0.01, "diff_ci": [low, high], "gain": not passed,
    }  # fmt: skip


@pytest.mark.parametrize("own", [{"low": float("nan")}, {"diff": None}, {"n": 0}])
def test_what_was_not_measured_is_no_pass(tmp_path: Path, own: dict[str, Any]) -> None:
    metrics(tmp_path, **own)
    with pytest.raises(ProjectError, match="no difference with an interval"):
        judge_control(tmp_path, CONTROL)


def test_a_comparison_that_was_not_made(tmp_path: Path) -> None:
    metrics(tmp_path)
    for pair in (("rl", "stf"), ("lr", "incoming")):
        with pytest.raises(ProjectError, match="not evaluated; did you mean 'rl"):
            judge_control(tmp_path, Control("noise", "", {}, (pair,)))
    (tmp_path / "data/report/metrics.json").unlink()
    with pytest.raises(ProjectError, match="wrote no metrics"):
        judge_control(tmp_path, CONTROL)


def test_parameters_are_laid_over_params_yaml_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("# mine\nrl:\n  # paper\n  reward: conditional\n  lr: 5.0e-7\n")
    text, changes = params_under(tmp_path, CONTROL)
    assert text == "# mine\nrl:\n  # paper\n  reward: random\n  lr: 5.0e-7\n" and changes == ["rl.reward: conditional -> random"]
    (tmp_path / "params.yaml").write_text(text)
    assert params_under(tmp_path, CONTROL) == (text, [])
    (tmp_path / "params.yaml").write_text("rl:\n  rewards: x\n")
    with pytest.raises(ProjectError, match=r"rl\.reward: params\.yaml has no such key; did you mean 'rewards'"):
        params_under(tmp_path, CONTROL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params: {}\n", "the keys no_gain, params, purpose are expected"),
        ("[]", "the keys"),
        ("purpose: p\nparams: 3\nno_gain: []\n", "a mapping of sections"),
        ("purpose: p\nparams: {}\nno_gain: []\n", "a list of"),
        ("purpose: p\nparams: {}\nno_gain: [rl]\n", "a list of"),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "infra/controls").mkdir(parents=True)
    (tmp_path / "infra/controls/noise.yaml").write_text(text)
    with pytest.raises(ProjectError, match=rf"infra/controls/noise\.yaml: .*{message}"):
        read_control(tmp_path, "noise")


def test_the_controls_that_ship() -> None:
    assert control_names(ROOT) == ["no-reasoning", "permuted-labels", "random-reward"]
    for name in control_names(ROOT):
        assert params_under(ROOT, read_control(ROOT, name))[1], "a control changes something"
