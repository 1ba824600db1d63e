"""A control on the real pipeline. The smoke profile's reward is random already, so every stage must come from the cache: cheap."""

import json

import pytest

from tests.support import project_clone
from tests.support.project_clone import STAGES, SmokeRun, contents, gr2, metrics, output_hashes

pytestmark = pytest.mark.slow


def test_random_reward(smoke: SmokeRun) -> None:
    root, copy = smoke.root, smoke.root / ".gr2/controls/random-reward"
    before = {path: path.read_bytes() for path in (root / "params.yaml", root / "dvc.lock")}, contents(root / "data")
    result = gr2(root, "run", "--control", "random-reward", ok=False)
    assert "restored from DVC's cache" in result.stdout and result.returncode in (0, 1), result.stdout + result.stderr
    table = result.stdout[: result.stdout.rindex("control random-reward:")]
    assert project_clone.states(type(result)([], 0, table)) == dict.fromkeys(STAGES, "Cached")
    assert output_hashes(copy) == output_hashes(root) and contents(copy / "data") == contents(root / "data")
    assert ({path: path.read_bytes() for path in before[0]}, contents(root / "data")) == before

    verdict = json.loads((copy / "verdict.json").read_text(encoding="utf-8"))
    own = metrics(root, "report")["contrasts"]["rl-sft"]["ndcg@5"]
    (comparison,) = verdict["comparisons"]
    assert (comparison["model"], comparison["against"], comparison["n"]) == ("rl", "sft", 40)
    assert (comparison["diff"], comparison["diff_ci"]) == (own["diff"], own["diff_ci"])
    assert comparison["gain"] == (own["diff_ci"][0] > 0) == (not verdict["passed"]) == bool(result.returncode)
