"""Two clones, the same bytes; and plain DVC does what the flow does."""

import re
import sys
from pathlib import Path

import pytest

from tasks.project.profiles import render
from tests.support.project_clone import STAGES, SmokeRun, call, clone, contents, copy_run_cache, gr2, output_hashes, planned, states

pytestmark = pytest.mark.slow

# test_two_nodes.py runs every stage a second time and compares the bytes. So here the long ones come from the first run, all but one that
# trains.
FROM_THE_RUN_CACHE = {"embed", "tokenize", "retrieve", "midtrain", "traces", "sft", "quantize", "evaluate"}


def test_dvc_repro_in_another_clone_gives_the_same_hashes(smoke: SmokeRun, tmp_path: Path) -> None:
    root = clone(tmp_path / "another")
    (root / "params.yaml").write_text(render(root, "smoke"), encoding="utf-8")
    copy_run_cache(smoke.root, root, FROM_THE_RUN_CACHE)
    output = call(root, sys.executable, "-m", "dvc", "repro").stdout
    assert set(re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)) == set(STAGES) - FROM_THE_RUN_CACHE
    assert set(re.findall(r"^Stage '(\w+)' is cached", output, re.MULTILINE)) == FROM_THE_RUN_CACHE, "plain DVC takes what the flow left it"
    left = {path.name for path in (root / ".gr2").glob("*")}
    assert left <= {"resume"}, "plain DVC needs nothing of the flow"  # resume: of stages that saved their way, on a slow machine
    assert len(output_hashes(root)) > 2 * len(STAGES)
    assert output_hashes(root) == output_hashes(smoke.root)
    assert (root / "dvc.lock").read_bytes() == (smoke.root / "dvc.lock").read_bytes()
    assert contents(root / "data") == contents(smoke.root / "data")
    assert planned(root) == {}, "the flow finds current what plain DVC made"


def test_a_clone_with_the_lock_and_an_empty_cache(smoke: SmokeRun, tmp_path: Path) -> None:
    """What a colleague has after git clone: dvc.lock says what should be there, and nothing is."""
    root = clone(tmp_path / "colleague")
    for name in ("params.yaml", "dvc.lock"):
        (root / name).write_bytes((smoke.root / name).read_bytes())
    assert states(gr2(root, "run", "ingest")) == {"fetch": "Completed", "ingest": "Completed"}
    assert (root / "dvc.lock").read_bytes() == (smoke.root / "dvc.lock").read_bytes()
    assert contents(root / "data/ingest") == contents(smoke.root / "data/ingest")
