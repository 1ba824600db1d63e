"""bench/compare_data.py tells new names from new content."""

import json
import sys
from pathlib import Path

import polars as pl
import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import compare_data
from compare_data import DIFFERS, EQUAL, EXCEPTED, RENAMED, Comparison, Renames, compare_folders

RENAMES = Renames(
    moved=(("a/old.parquet", "b/new.parquet"), ("a/", "b/")),
    columns={"b/new.parquet": {"before": "after"}},
    values={("b/new.parquet", "split"): {"slates": "train"}},
    keys={"b/*.json": {"slates": "train"}},
    ignored_keys={("b/m.json", "seconds"): "a measurement of time"},
    words={"b/card.md": {"slates": "train"}},
    rows={"b/answers.parquet": {"kind": "greedy"}},
    added_columns={"b/answers.parquet": ("kind",)},
    exceptions={"b/page.html": "names the files"},
)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "a").mkdir(parents=True)
    (new / "b").mkdir(parents=True)
    pl.DataFrame({"before": [1, 2], "split": ["base", "slates"]}).write_parquet(old / "a/old.parquet")
    pl.DataFrame({"split": ["base", "train"], "after": [1, 2]}).write_parquet(new / "b/new.parquet")
    (old / "a/m.json").write_text(json.dumps({"by_split": {"slates": 3}, "seconds": 1}))
    (new / "b/m.json").write_text(json.dumps({"by_split": {"train": 3}, "seconds": 2}))
    (old / "a/weights.bin").write_bytes(b"abc")
    (new / "b/weights.bin").write_bytes(b"abc")
    (old / "a/page.html").write_text("a/old.parquet")
    (new / "b/page.html").write_text("b/new.parquet")
    (old / "a/card.md").write_text("slates: 3, translates: 1")
    (new / "b/card.md").write_text("train: 3, translates: 1")
    (old / "README.md").write_text("old")
    return old, new


def verdicts(rows: list[Comparison]) -> dict[str, str]:
    return {row.new or str(row.old): row.verdict for row in rows}


def test_new_names_alone_are_no_difference(folders: tuple[Path, Path]) -> None:
    rows = compare_folders(*folders, RENAMES)
    assert verdicts(rows) == {
        "b/card.md": RENAMED,
        "b/m.json": RENAMED,
        "b/new.parquet": RENAMED,
        "b/page.html": EXCEPTED,
        "b/weights.bin": EQUAL,
    }
    assert next(row.old for row in rows if row.new == "b/new.parquet") == "a/old.parquet"


def test_declared_new_rows_and_columns_are_no_difference(folders: tuple[Path, Path]) -> None:
    old, new = folders
    pl.DataFrame({"order": [[0, 1], [1, 0]]}).write_parquet(old / "a/answers.parquet")
    pl.DataFrame({"order": [[0, 1], [0, 1], [1, 0]], "kind": ["greedy", "free", "greedy"]}).write_parquet(new / "b/answers.parquet")
    assert verdicts(compare_folders(old, new, RENAMES))["b/answers.parquet"] == RENAMED
    pl.DataFrame({"order": [[0, 1], [0, 1]], "kind": ["greedy", "greedy"]}).write_parquet(new / "b/answers.parquet")
    assert verdicts(compare_folders(old, new, RENAMES))["b/answers.parquet"] == DIFFERS


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"split": ["base", "train"], "after": [1, 3]}, "values of after"),
        ({"split": ["base", "train"], "after": [1.0, 2.0]}, "column types: after"),
        ({"split": ["train"], "after": [1]}, "2 and 1 rows"),
        ({"split": ["base", "train"], "later": [1, 2]}, "columns on one side only: after, later"),
    ],
)
def test_a_changed_table_differs(folders: tuple[Path, Path], table: dict[str, list[object]], reason: str) -> None:
    pl.DataFrame(table).write_parquet(folders[1] / "b/new.parquet")
    row = next(row for row in compare_folders(*folders, RENAMES) if row.new == "b/new.parquet")
    assert (row.verdict, row.reason) == (DIFFERS, reason)


def test_changed_json_bytes_and_file_names_differ(folders: tuple[Path, Path]) -> None:
    old, new = folders
    (new / "b/m.json").write_text(json.dumps({"by_split": {"train": 4}, "more": []}))
    (new / "b/weights.bin").write_bytes(b"abd")
    (new / "b/extra.csv").write_text("x\n1\n")
    (old / "a/gone.csv").write_text("x\n1\n")
    rows = {row.new or str(row.old): row for row in compare_folders(old, new, RENAMES)}
    assert {name for name, row in rows.items() if row.verdict == DIFFERS} == {"b/m.json", "b/weights.bin", "b/extra.csv", "a/gone.csv"}
    assert rows["b/m.json"].reason == "2 values, as by_split.train, more"


def test_the_exit_code_says_whether_anything_is_unexplained(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = folders
    for command, code in ((["x", str(new), str(new)], 0), (["x", str(old), str(new)], 1)):  # 1: these renames are not the project's
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            compare_data.main()
        assert ended.value.code == code
    assert "files:" in capsys.readouterr().out
