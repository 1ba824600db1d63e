"""`gr2 run --control` on the toy project: its own workspace, the original's cache, a verdict; and nothing of the user's is touched."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support import dvc_toy

EVALUATE = """\
import json, pathlib, yaml
params = yaml.safe_load(open("params.yaml"))["evaluate"]
words = pathlib.Path(params["folder"], "words.txt").read_text() + pathlib.Path("data/d/out.txt").read_text()
def own(gain):
    return {"n": 40, "ndcg@5": {"mean": 0.5, "diff": gain, "diff_ci": [gain - 0.02, gain + 0.02]}}
models = {"incoming": own(0.0), "sft": own(0.01), "rl": own(params["gain"])}
pathlib.Path("data/report").mkdir(parents=True, exist_ok=True)
metrics = {"words": words, "models": models, "contrasts": {"rl-sft": own(params["gain"] - 0.01)}}
pathlib.Path("data/report/metrics.json").write_text(json.dumps(metrics))
"""
PARAMS = dvc_toy.PARAMS + "evaluate:\n  gain: 0.01\n  folder: raw/mine\n"
NOISE = """\
purpose: noise teaches nothing
params: {b: {deep: {y: 9}, x: 7}}
no_gain: [{model: rl, against: sft}, {model: rl, against: incoming}]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The diamond and an evaluation behind it, run once; its raw data lie in a folder that git ignores."""
    root = dvc_toy.make(tmp_path / "toy", PARAMS)
    package = root / "stages/evaluate"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(EVALUATE)
    with (root / "dvc.yaml").open("a") as file:
        file.write(
            "  evaluate:\n    cmd: python -m stages.evaluate\n    params: [evaluate]\n    metrics: [data/report/metrics.json]\n"
            "    deps: [stages/__init__.py, stages/evaluate/__init__.py, stages/evaluate/__main__.py, data/d/out.txt]\n"
        )
    with (root / ".gitignore").open("a") as file:
        file.write("/raw/\n")
    (root / "raw/mine").mkdir(parents=True)
    (root / "raw/mine/words.txt").write_text("raw ")
    (root / "infra/controls").mkdir(parents=True)
    (root / "infra/controls/noise.yaml").write_text(NOISE)
    dvc_toy.commit(root, "an evaluation")
    dvc_toy.dvc(root, "repro", "-q")
    return root


def touched(root: Path) -> dict[str, bytes]:
    """All that is the user's: everything but git's and DVC's own, and .gr2."""
    files = (path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] not in (".git", ".dvc", ".gr2"))
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_a_control_from_the_first_run_to_a_gain(project: Path, server: str) -> None:
    def control(code: int) -> tuple[dict[str, str], str]:
        result = dvc_toy.gr2(project, "run", "--control", "noise", ok=False, PREFECT_API_URL=server)
        assert result.returncode == code, result.stdout + result.stderr
        before, closing = result.stdout.rsplit("control noise:", 1)
        return dvc_toy.states(type(result)([], code, before)), closing

    (project / "new.txt").write_text("untracked\n")
    before = touched(project)
    copy = project / ".gr2/controls/noise"

    states, said = control(0)
    assert states == {"a": "Cached", "c": "Cached", "b": "Completed", "d": "Completed", "evaluate": "Completed"}
    assert "rl against sft: NDCG@5 +0.0000 [-0.0200, +0.0200], n 40: no gain" in said and "passed" in said
    assert touched(project) == before
    assert (copy / "new.txt").exists() and not (copy / ".dvc/cache").exists()
    assert json.loads((copy / "data/report/metrics.json").read_text())["words"] == "raw a1\nb7\na1\nc1\nd1\n"
    verdict = json.loads((copy / "verdict.json").read_text())
    assert verdict["passed"] and [(own["model"], own["against"], own["gain"]) for own in verdict["comparisons"]] == [
        ("rl", "sft", False),
        ("rl", "incoming", False),
    ]

    assert set(control(0)[0].values()) == {"Cached"}
    shutil.rmtree(copy)  # a fresh copy: all comes back from the cache
    assert set(control(0)[0].values()) == {"Cached"}
    assert (copy / "data/b/model/weights.bin").read_text() == "a1\nb7\n"

    with (project / "stages/c/words.py").open("a") as file:
        file.write("# an edit that is not committed\n")
    (project / "new.txt").unlink()
    dvc_toy.set_param(project, "gain: 0.01", "gain: 0.035")
    states, said = control(1)
    assert states == {"a": "Cached", "b": "Cached", "c": "Completed", "d": "Cached", "evaluate": "Completed"}
    assert "rl against sft: NDCG@5 +0.0250 [+0.0050, +0.0450], n 40: GAIN" in said and "FAILED" in said
    assert not (copy / "new.txt").exists() and not json.loads((copy / "verdict.json").read_text())["passed"]

    dvc_toy.set_param(project, "c:\n  x: 1", "c:\n  x: 1\n  fail: 'no rows'")
    result = dvc_toy.gr2(project, "run", "--control", "noise", ok=False, PREFECT_API_URL=server)
    assert result.returncode == 1 and result.stderr.strip().endswith("gr2: c: no rows")
    assert not (copy / "verdict.json").exists(), "the verdict of an earlier run"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--control", "nose"], "unknown control 'nose'; did you mean 'noise'? (controls: "),
        (["--control", "noise", "b"], "neither stages nor a profile"),
        (["--control", "noise", "--profile", "smoke"], "neither stages nor a profile"),
        (["--control", "typo"], "infra/controls/typo.yaml: b.deeep: params.yaml has no such key; did you mean 'deep'?"),
    ],
)
def test_wrong_requests(tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {b: {cmd: x}}\n")
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "infra/controls").mkdir(parents=True)
    (tmp_path / "infra/controls/noise.yaml").write_text(NOISE)
    (tmp_path / "infra/controls/typo.yaml").write_text(NOISE.replace("deep:", "deeep:"))
    result = dvc_toy.gr2(tmp_path, "run", *words, ok=False)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / ".gr2").exists()
