"""What a DVC that was killed leaves behind does not stop the next run."""

from pathlib import Path

import dvc_toy
import pytest

from tasks.identity import opened


@pytest.mark.parametrize("text", ["", '{"read": {"/x/data'])
def test_a_half_written_record_of_dvc_s_processes_is_mended(tmp_path: Path, text: str) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    record = root / ".dvc" / "tmp" / "rwlock"
    record.parent.mkdir(exist_ok=True)
    record.write_text(text)
    refused = dvc_toy.call(root, "dvc", "repro", "-s", "a", ok=False)
    assert refused.returncode and "RWLock" in refused.stderr, "DVC mends it itself by now: this is no longer needed"
    with opened(root):
        assert not record.exists()
    dvc_toy.dvc(root, "repro", "-s", "a")


def test_a_whole_record_stays(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    record = root / ".dvc" / "tmp" / "rwlock"
    record.parent.mkdir(exist_ok=True)
    record.write_text('{"read": {}, "write": {}}')
    with opened(root):
        assert record.read_text() == '{"read": {}, "write": {}}'
