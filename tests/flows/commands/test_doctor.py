"""gr2 doctor hands the project's own tool the parameters that are meant, and takes over its exit code."""

from pathlib import Path

from tests.support import dvc_toy

TOOL = """\
import pathlib, sys
text = pathlib.Path(sys.argv[1]).read_text()
print(text, sys.argv[2:])
sys.exit("x: 50" in text)
"""


def test_doctor_looks_at_params_or_at_profiles(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    (root / "infra/profiles").mkdir(parents=True)
    (root / "infra/profiles/default.yaml").write_text(dvc_toy.PARAMS)
    (root / "infra/profiles/big.yaml").write_text("b: {x: 50}\n")
    (root / "infra/profiles/deep.yaml").write_text("b: {deep: {y: 7}}\n")
    (root / "stages/tools").mkdir()
    (root / "stages/tools/doctor.py").write_text(TOOL)
    before = (root / "params.yaml").read_text()
    assert "y: 2" in dvc_toy.gr2(root, "doctor").stdout
    result = dvc_toy.gr2(root, "doctor", "--profile", "big", "--profile", "deep", "--gpu-gb", "40", "--json", ok=False)
    assert result.returncode == 1 and "y: 7" in result.stdout and "['--json', '--gpu-gb=40.0']" in result.stdout
    assert (root / "params.yaml").read_text() == before
    result = dvc_toy.gr2(root, "doctor", "--profile", "bgi", ok=False)
    assert result.returncode == 2 and "did you mean 'big'" in result.stderr
