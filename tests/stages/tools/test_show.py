import json

import pytest

from stages.shared.generation.invocations import Invocation, Invocations
from stages.tools import show

ROWS = [
    Invocation(3, "teacher", "attempt 1", 0, "endpoint", "what\nnow", "A B\x1b[2J", 7, 3, 0.25, "stop"),
    Invocation(3, "teacher", "attempt 2", 0, "endpoint", "what\nnow", "B A", 7, 3, 0.5, "timeout"),
    Invocation(9, "teacher", "attempt 1", 0, "endpoint", "else", "C", 5, 1, 0.5, "length"),
]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data/traces/invocations.parquet"
    path.parent.mkdir(parents=True)
    record = Invocations(True)
    record.add(ROWS)
    record.write(path)
    return path


def printed(capsys, *arguments):
    show.main(["traces", *arguments])
    return capsys.readouterr().out


def test_a_list_a_row_and_the_rows_of_a_slate(kept, capsys):
    lines = printed(capsys).splitlines()
    assert len(lines) == 3 and "slate 9" in lines[2] and "length" in lines[2]
    one = printed(capsys, "--row", "0")
    assert "--- prompt\nwhat\nnow\n" in one and "--- completion\nA B\\x1b[2J\n" in one and "seconds 0.250" in one
    assert "1 more: --limit" in printed(capsys, "--slate", "3")
    assert printed(capsys, "--slate", "3", "--limit", "2").count("--- prompt") == 2
    rows = json.loads(printed(capsys, "--slate", "3", "--kind", "attempt 2", "--json"))
    assert [(row["row"], row["completion"], row["finish"]) for row in rows] == [(1, "B A", "timeout")]


def test_what_is_not_there_is_said(kept, capsys):
    with pytest.raises(SystemExit, match=r"no such row: there are 3 rows, of slates 3 to 9 \(teacher: attempt 1, teacher: attempt 2\)"):
        show.main(["traces", "--slate", "4"])
    with pytest.raises(SystemExit, match="sft: keeps no prompts"):
        show.main(["sft"])
    Invocations(False).write(kept)
    with pytest.raises(SystemExit, match="keep_invocations: true"):
        show.main(["traces"])
    kept.unlink()
    with pytest.raises(SystemExit, match="gr2 run traces"):
        show.main(["traces"])


def test_nothing_is_kept_unless_asked(tmp_path):
    record = Invocations(False)
    record.add(ROWS)
    record.write(tmp_path / "a.parquet")
    Invocations(False).write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
