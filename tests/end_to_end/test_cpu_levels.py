"""The smoke profile as another processor would compute it: what differs, and that gates and verdicts do not."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.report.page.page import standing
from tasks.project.profiles import render
from tests.support.project_clone import STAGES, SmokeRun, call, clone, environment, metrics, output_hashes

pytestmark = pytest.mark.slow

# What these stages write is counted, not computed in floating point by torch: the same bytes on every machine.
EXACT = {"data/raw", *(f"data/ingest/{name}" for name in ("interactions.parquet", "items.parquet", "users.parquet", "quarantine.parquet"))}


@pytest.fixture(scope="module")
def plain(smoke: SmokeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke run with ATEN_CPU_CAPABILITY=default: torch without AVX, so with sums in another order. By plain DVC, in one process."""
    root = clone(tmp_path_factory.mktemp("cpu") / "project")
    (root / "params.yaml").write_text(render(root, "smoke"), encoding="utf-8")
    output = call(root, sys.executable, "-m", "dvc", "repro", env={**environment(root), "ATEN_CPU_CAPABILITY": "default"}).stdout
    assert set(re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)) == set(STAGES), "every gate that stops a stage was passed"
    return root


def claims(report: dict[str, Any]) -> dict[str, bool]:
    """Of which ranker a gain is claimed. (Whether a model that learnt next to nothing is clearly worse is left to chance.)"""
    return {name: standing(figures["ndcg@5"]) == "above" for name, figures in report["models"].items() if name != "incoming"}


def test_what_differs_is_what_torch_computes(smoke: SmokeRun, plain: Path, record_property: pytest.FixtureRequest) -> None:
    ours, theirs = output_hashes(smoke.root), output_hashes(plain)
    assert ours.keys() == theirs.keys()
    differing = sorted(path for path in ours if ours[path] != theirs[path])
    record_property("differs", ", ".join(differing))  # type: ignore[operator]
    print("differs between CPU levels:", ", ".join(differing) or "nothing")
    assert not set(differing) & EXACT


def test_gates_and_verdicts_are_the_same(smoke: SmokeRun, plain: Path) -> None:
    for root in (smoke.root, plain):
        assert metrics(root, "tokenize")["uniqueness"]["after"] >= 0.99
        checks = [metrics(root, stage)["leak_check"] for stage in ("midtrain", "traces", "sft", "rl")]
        assert all(check["overlap"] == 0 for check in checks)
    ours, theirs = (metrics(root, "report") for root in (smoke.root, plain))
    assert claims(ours) == claims(theirs) and claims(ours)["lambdamart"] and not claims(ours)["sft"]
    assert {name: bool(flags) for name, flags in ours["suspicions"].items()} == {
        name: bool(flags) for name, flags in theirs["suspicions"].items()
    }
