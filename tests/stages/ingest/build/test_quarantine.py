import polars as pl
import pytest

from stages.ingest.build.quarantine import FULL_LIST
from stages.ingest.readers.raw import REJECTED
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json
from tests.support.raw_log import ITEM, LOG, by_source, raw_log, run

GOOD = [(f"u{user}", f"i{item}", item) for user in range(9) for item in range(11)]  # 99 rows
PARAMS = {"min_interactions": 1}


def rejected_by_reader(count: int) -> list[tuple[str, int, str, str]]:
    return [(LOG, 1000 + number, "timestamp is not a number", f"row\x1b[31m {number}") for number in range(count)]


def test_all_good_leaves_an_empty_table(tmp_path):
    out = run(tmp_path, raw_log(tmp_path / "raw", GOOD), **PARAMS)
    table = pl.read_parquet(out / "quarantine.parquet")
    assert table.is_empty() and table.schema == pl.Schema(REJECTED)
    assert read_json(out / "metrics.json")["rejected"] == {}
    assert not (tmp_path / FULL_LIST).exists()


def test_rows_of_every_origin_are_kept(tmp_path):
    items = [f"i{item}" for item in range(9)] + [("i9", " \u200b&nbsp;")]  # i9 has no title, i10 is in no file
    raw = raw_log(tmp_path / "raw", GOOD, items, rejected=[(ITEM, 40, "item stands twice", "i0\tagain"), *rejected_by_reader(1)])
    out = run(tmp_path, raw, max_bad_share=0.5, **PARAMS)
    table = pl.read_parquet(out / "quarantine.parquet")
    assert table.schema == pl.Schema(REJECTED)
    expected = [
        (LOG, row, "item is not in the item file, or has no title there", "\t".join(map(str, GOOD[row - 1]))) for row in range(1, 100)
    ]
    expected = [row for row in expected if "\ti9\t" in row[3] or "\ti10\t" in row[3]]
    assert table.rows() == [
        *expected,
        (LOG, 1000, "timestamp is not a number", "row\x1b[31m 0"),
        (ITEM, 10, "no title is left after cleaning", "i9\t \u200b&nbsp;"),
        (ITEM, 40, "item stands twice", "i0\tagain"),
    ]
    metrics = read_json(out / "metrics.json")
    assert metrics["rejected"] == {
        LOG: {"item is not in the item file, or has no title there": 18, "timestamp is not a number": 1},
        ITEM: {"item stands twice": 1, "no title is left after cleaning": 1},
    }
    assert metrics["dropped"]["rejected"] == 19 and metrics["interactions"] == 81
    assert {item for _, item, *_ in by_source(out)} == {f"i{item}" for item in range(9)}


def test_the_share_itself_passes_and_one_more_fails(tmp_path):
    log = GOOD[:-1]
    run(tmp_path, raw_log(tmp_path / "raw", log, rejected=rejected_by_reader(2)), max_bad_share=0.02, **PARAMS)  # 2 of 100
    with pytest.raises(StageError):
        run(tmp_path, raw_log(tmp_path / "raw", log[:-1], rejected=rejected_by_reader(3)), max_bad_share=0.02, **PARAMS)  # 3 of 100
    with pytest.raises(StageError):
        run(tmp_path, raw_log(tmp_path / "raw", GOOD, rejected=rejected_by_reader(1)), max_bad_share=0.0, **PARAMS)


def test_a_failure_says_what_where_and_what_to_do(tmp_path):
    raw = raw_log(tmp_path / "raw", GOOD, [f"i{item}" for item in range(10)], rejected=rejected_by_reader(1))
    with pytest.raises(StageError) as error:
        run(tmp_path, raw, **PARAMS)
    lines = str(error.value).splitlines()
    assert lines[0] == (
        f"{LOG}: 10 of 100 rows (10.00%) cannot be used, more than ingest.max_bad_share (0.01): "
        "9 x item is not in the item file, or has no title there; 1 x timestamp is not a number"
    )
    rows = [number for number, row in enumerate(GOOD, start=1) if row[1] == "i10"]
    texts = ["\t".join(map(str, GOOD[row - 1])) for row in rows]
    assert lines[1:6] == [
        f"  row {row}: item is not in the item file, or has no title there: {text!r}"
        for row, text in list(zip(rows, texts, strict=True))[:5]
    ]
    assert "raise ingest.max_bad_share" in lines[6] and str(FULL_LIST) in lines[6]
    full = pl.read_parquet(tmp_path / FULL_LIST)
    assert full.schema == pl.Schema(REJECTED) and sorted(full["row"]) == [*rows, 1000]
    assert not (tmp_path / "data/ingest").exists()

    run(tmp_path, raw, max_bad_share=0.1, **PARAMS)
    assert not (tmp_path / FULL_LIST).exists()  # nothing stale next to a good run


def test_a_terminal_is_not_told_what_to_do(tmp_path):
    with pytest.raises(StageError) as error:
        run(tmp_path, raw_log(tmp_path / "raw", GOOD, rejected=rejected_by_reader(5)), **PARAMS)
    assert "\x1b" not in str(error.value) and "\\x1b[31m 3" in str(error.value)


def test_a_bad_item_file_is_named_before_the_log_that_suffers(tmp_path):
    with pytest.raises(StageError) as error:
        run(tmp_path, raw_log(tmp_path / "raw", GOOD, ["i0", "i1"], rejected=[(ITEM, 3, "item stands twice", "i1")]), **PARAMS)
    files = [line.split(":")[0] for line in str(error.value).splitlines() if "cannot be used" in line]
    assert files == [ITEM, LOG]
    assert "1 of 3 rows" in str(error.value)


def test_rows_that_are_left_out_are_told_on_the_console(tmp_path, capsys):
    """Too few to stop the stage, and not unseen; what needs no remedy is not told."""
    items = [*(f"i{item}" for item in range(11)), ("x", "")]
    run(tmp_path, raw_log(tmp_path / "raw", GOOD, items, rejected=rejected_by_reader(1)), **PARAMS)
    told = f"{LOG}: 1 of 100 rows are left out: 1 x timestamp is not a number; the first is row 1000: 'row\\x1b[31m 0' (quarantine.parquet)"
    assert capsys.readouterr().out == told + "\n"
    run(tmp_path, raw_log(tmp_path / "raw", GOOD, items), **PARAMS)
    assert capsys.readouterr().out == ""


def test_a_log_without_one_good_row(tmp_path):
    with pytest.raises(StageError, match=f"{LOG}: 4 of 4 rows"):
        run(tmp_path, raw_log(tmp_path / "raw", [], ["i0"], rejected=rejected_by_reader(4)), **PARAMS)


def test_items_without_a_title_matter_when_somebody_took_them(tmp_path):
    """Half of an item file without titles is fine as long as the log does not name those items."""
    taken = sorted({row[1] for row in GOOD})
    nobody = [(f"x{place}", "") for place in range(len(taken))]
    out = run(tmp_path, raw_log(tmp_path / "raw", GOOD, [*taken, *nobody]), **PARAMS)
    assert read_json(out / "metrics.json")["rejected"] == {ITEM: {"no title is left after cleaning": len(nobody)}}
    with pytest.raises(StageError, match=f"{LOG}: .* x item is not in the item file, or has no title there"):
        run(tmp_path, raw_log(tmp_path / "raw", GOOD, [*taken[1:], (taken[0], "\u200b")]), **PARAMS)
