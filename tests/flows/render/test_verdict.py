"""The end of a run: the report in five lines, from files as the stage writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.render.verdict import verdict_lines
from stages.report.page.page import verdict
from stages.report.plots_data import headline
from tasks.domain.report_summary import read_report, reported_by
from tasks.project.graph import read_graph
from tests.support.report_data import made_up

ROOT = Path(__file__).resolve().parents[3]
SENTENCE = "The RL model beats the initial ranking."


def write(root: Path, metrics: dict[str, Any], figures: dict[str, Any]) -> Path:
    folder = root / "data" / "report"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "headline.json").write_text(json.dumps(figures))
    return root


def figures(low: float) -> dict[str, Any]:
    gain = {"ndcg@5": 0.4409, "recall@1": 0.2, "diff": 0.033, "diff_low": low, "diff_high": 0.0504}
    return {"oracle": {**gain, "ndcg@5": 1.0}, "rl": gain, "incoming": {"ndcg@5": 0.396, "recall@1": 0.2}, "sft": gain}


def test_five_lines(tmp_path: Path) -> None:
    report = read_report(write(tmp_path, {"verdict": [SENTENCE, "More."], "slates": 1268}, figures(-0.0004)))
    assert report is not None
    assert verdict_lines(report) == [
        SENTENCE,
        "        initial ranking  SFT                 RL",
        "NDCG@5  .396             .441                .441",
        "gain                     +.033 [.000, .050]  +.033 [.000, .050]",
        "The page: data/report/report.html. Next: gr2 power says how many slates it takes to see a gain; what was tried: docs/training.md.",
    ]


@pytest.mark.parametrize(
    ("slates", "low", "words"), [(1268, 0.015, "gr2 seeds"), (1268, -0.01, "gr2 power"), (40, 0.015, "--profile default")]
)
def test_what_to_do_next(tmp_path: Path, slates: int, low: float, words: str) -> None:
    report = read_report(write(tmp_path, {"verdict": [SENTENCE], "slates": slates}, figures(low)))
    assert report is not None and words in verdict_lines(report)[-1]


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ([], "gr2 run --profile default."),
        (["smoke"], "gr2 run --profile default."),
        (["smoke", "shop"], "gr2 run --profile shop."),
        (["logged", "smoke", "shop"], "gr2 run --profile logged --profile shop."),
        (["shop"], "docs/own-data.md"),
    ],
)
def test_after_a_short_run_the_data_stay_those_of_the_run(tmp_path: Path, profiles: list[str], words: str) -> None:
    report = read_report(write(tmp_path, {"verdict": [SENTENCE], "slates": 40}, figures(0.015)))
    assert report is not None
    last = verdict_lines(report, profiles)[-1]
    assert words in last and ("default" in last) == (words.endswith("default."))


def test_the_report_as_its_stage_writes_it(tmp_path: Path) -> None:
    data = made_up()
    sentences = verdict(data.summary, data.subject)
    report = read_report(write(tmp_path, {"verdict": sentences, "slates": data.summary["slates"]}, headline(data.summary)))
    assert report is not None and report.sentence == sentences[0] and len(verdict_lines(report)) == 5
    assert {ranker.label for ranker in report.rankers} >= {"initial ranking", "RL"}
    assert report.clear == (data.summary["models"]["rl"]["ndcg@5"]["diff_ci"][0] > 0)
    assert reported_by(read_graph(ROOT)) == "report"


def test_no_report_and_one_of_another_version_are_no_error(tmp_path: Path) -> None:
    assert read_report(tmp_path) is None
    assert read_report(write(tmp_path, {"slates": 40}, figures(0.0))) is None
