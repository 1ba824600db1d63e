import polars as pl
import pytest

from stages.shared.core.errors import StageError
from stages.shared.core.schemas import SIDS, USERS, read_table, write_table

USERS_TABLE = pl.DataFrame({"user": [0, 1], "source_id": ["a", "ü"]}, schema=USERS)
WRONG = {
    "missing": (USERS_TABLE.drop("source_id"), r"the column 'source_id' is missing \(found: user\)"),
    "type": (USERS_TABLE.cast({"user": pl.Int64}), "the column 'user' is Int64, expected Int32"),
    "extra": (USERS_TABLE.with_columns(x=1), "unexpected columns x"),
    "empty": (USERS_TABLE.clear(), "the table has no rows"),
}


def test_a_table_comes_back_as_it_was(tmp_path):
    write_table(USERS_TABLE, tmp_path / "users.parquet", USERS)
    assert read_table(tmp_path / "users.parquet", USERS).equals(USERS_TABLE)
    write_table(USERS_TABLE, tmp_path / "again.parquet", USERS)
    assert (tmp_path / "users.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_a_path_is_no_pattern(tmp_path):
    folder = tmp_path / "a[1]"
    folder.mkdir()
    write_table(USERS_TABLE, folder / "users.parquet", USERS)
    assert read_table(folder / "users.parquet", USERS).equals(USERS_TABLE)


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_table_is_refused_on_write_and_on_read(tmp_path, fault):
    table, message = WRONG[fault]
    with pytest.raises(StageError, match=rf"users\.parquet: {message}"):
        write_table(table, tmp_path / "users.parquet", USERS)
    assert not (tmp_path / "users.parquet").exists()
    table.write_parquet(tmp_path / "users.parquet")
    with pytest.raises(StageError, match=rf"users\.parquet: {message}"):
        read_table(tmp_path / "users.parquet", USERS)


def test_the_type_inside_a_list_counts(tmp_path):
    table = pl.DataFrame({"item": [0], "codes": [[1, 2]], "sid": ["x"]}, schema={**SIDS, "codes": pl.List(pl.Int64)})
    with pytest.raises(StageError, match=r"the column 'codes' is List\(Int64\), expected List\(Int32\)"):
        write_table(table, tmp_path / "sids.parquet", SIDS)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe not a table", "half"])
def test_a_damaged_file_says_what_to_run(tmp_path, content):
    path = tmp_path / "ingest" / "users.parquet"
    path.parent.mkdir()
    write_table(USERS_TABLE, path, USERS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(StageError, match=r"users\.parquet: not a readable Parquet file .*rerun: gr2 run ingest"):
        read_table(path, USERS)


def test_a_missing_file_says_what_to_run(tmp_path):
    with pytest.raises(StageError, match=r"users\.parquet: no such file; .* gr2 run ingest"):
        read_table(tmp_path / "ingest/users.parquet", USERS)
