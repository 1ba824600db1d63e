"""A log of one's own in shapes that other programs leave: in parts, with objects within rows, decimal commas, lists written out."""

import gzip
import hashlib
import json
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.shared.sources.nested import NotAnObject, flat, has_path, value_at
from stages.shared.sources.written_lists import written_list
from tests.support.raw_log import ITEM, raw_log, run
from tests.support.raw_reading import read, write

ROWS = [(f"u{n % 3}", f"i{n}", 1000 + n) for n in range(9)]
LOG = pl.DataFrame(ROWS, schema=["user", "item", "timestamp"], orient="row")
TABLE = {"title": ""}


def store(table: pl.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    match ending:
        case "parquet":
            table.write_parquet(path)
        case "jsonl":
            path.write_bytes("".join(f"{json.dumps(row)}\n" for row in table.to_dicts()).encode())
        case _:
            table.write_csv(path, separator="\t" if ending == "tsv" else ",", check_extension=False)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))


@settings(max_examples=12, deadline=None)
@given(
    ending=st.sampled_from(["csv", "tsv.gz", "jsonl", "parquet"]),
    cuts=st.lists(st.integers(0, len(ROWS)), min_size=1, max_size=4).map(sorted),
    deep=st.booleans(),
    turned=st.booleans(),
)
def test_parts_are_one_log_in_the_order_of_their_names(ending, cuts, deep, turned):
    """Without times, so that the order of the rows counts from part to part. Some are empty, some have their columns in another order."""
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there)
        for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(ROWS)], strict=True)):
            part = LOG.slice(start, end - start)
            part = part.select(reversed(part.columns)) if turned and number % 2 else part
            store(part, folder / "log" / (f"day={number}" if deep else "") / f"part-{number}.{ending}")
        (folder / "log" / "_SUCCESS").touch()
        table = {**TABLE, "timestamp": ""}
        got = read(folder, "table", table={**table, "interactions": f"log/{'**/' if deep else ''}*.{ending}"})
        store(LOG, folder / f"whole.{ending}")
        whole = read(folder, "table", table={**table, "interactions": f"whole.{ending}"})
    assert [row[:3] for row in got.interactions] == [row[:3] for row in whole.interactions]
    rows = [row[4] for row in got.interactions]
    assert rows == sorted(set(rows)) and [item[0] for item in got.items] == [item[0] for item in whole.items]
    assert got.log.interaction_rows == len(ROWS)


def test_a_bad_row_of_a_part_is_named_by_the_pattern_and_rows_count_on(tmp_path):
    folder = write(tmp_path / "raw", a1__csv="user,item,timestamp\nu,a,5\n", a2__csv="user,item,timestamp\nu,b,6\n,c,7\n")
    got = read(folder, "table", table={**TABLE, "interactions": "a*.csv"})
    assert [row[:3] for row in got.rejected] == [("a*.csv", 5, "empty user id")]  # two lines, then the third of a2.csv
    [whole, _] = got.log.files
    assert [part.name for part in whole.parts] == ["a1.csv", "a2.csv"]
    listed = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in ("a1.csv", "a2.csv"))
    assert whole.sha256 == hashlib.sha256(listed.encode()).hexdigest()


def test_a_pattern_without_a_file_a_folder_and_parts_without_rows(tmp_path):
    folder = write(tmp_path / "raw", a1__csv="user,item,timestamp\n", a2__csv="user,item,timestamp\n")
    (folder / "log").mkdir()
    (folder / "log" / "part-0.parquet").touch()
    for name, words in (("b*.csv", "no file of such a name"), ("log", "or name the parts: log/[*].parquet"), ("a*.csv", "no rows")):
        with pytest.raises(StageError, match=words):
            read(folder, "table", table={**TABLE, "interactions": name})


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_objects_within_rows(tmp_path, ending):
    rows = [
        {
            "user": {"id": 2**64 + n, "of": {"land": "ES"}},
            "item": {"id": f"00{n}", "name": f"Thing {n}", "kinds": [{"name": "A"}]},
            "at": 5 + n,
        }
        for n in range(2)
    ]
    if ending == "parquet":  # whose integers end at 64 bits
        rows = [{**row, "user": {**row["user"], "id": str(row["user"]["id"])}} for row in rows]
    folder = tmp_path / "raw"
    folder.mkdir()
    if ending == "parquet":
        pl.DataFrame(rows).write_parquet(folder / "log.parquet")
    else:
        write(folder, log__jsonl="".join(f"{json.dumps(row)}\n" for row in rows))
    names = {
        "user": "user.id",
        "item": "item.id",
        "timestamp": "at",
        "title": "item.name",
        "categories": "item.kinds",
        "brand": "user.of.land",
    }
    got = read(folder, "table", table={**names, "interactions": f"log.{ending}"})
    assert [row[:3] for row in got.interactions] == [(str(2**64), "000", 5), (str(2**64 + 1), "001", 6)]
    assert [item[:5] for item in got.items] == [("000", "Thing 0", "", "ES", ["A"]), ("001", "Thing 1", "", "ES", ["A"])]
    with pytest.raises(StageError, match=r"'user\.no' is missing \(found: .*(user\.id|item\.id)"):
        read(folder, "table", table={**names, "user": "user.no", "interactions": f"log.{ending}"})


def test_something_else_where_an_object_is_needed_makes_a_bad_row(tmp_path):
    lines = ['{"user": {"id": 1}, "item": "a", "timestamp": 5, "mark": {"stars": 3}}', '{"user": 2, "item": "a", "timestamp": 6}']
    lines += ['{"user": {"id": 3}, "item": "a", "timestamp": 7, "mark": 3}', '{"user": {"id": 4}, "item": "a", "timestamp": 8}']
    folder = write(tmp_path / "raw", log__jsonl="\n".join(lines))
    got = read(folder, "table", table={**TABLE, "interactions": "log.jsonl", "user": "user.id", "rating": "mark.stars"})
    assert [row[0] for row in got.interactions] == ["1", "4"] and [row[1] for row in got.rejected] == [2, 3]


@given(st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1), max_leaves=6))
def test_what_is_flat_is_found_by_its_path(value):
    record = {"x": value, "x.a": 7}
    for path, inner in flat(record):
        assert has_path(record, path) and (value_at(record, path) == inner or path == "x.a")
    assert value_at(record, "x.a") == 7 and not has_path(record, "x.d") and not has_path(record, "y.a")
    with pytest.raises(NotAnObject):
        value_at({"x": 1}, "x.y")


@pytest.mark.parametrize(
    ("texts", "decimal", "expected"),
    [
        (("4,5", "3", "0,25"), ",", [4.5, 3.0, 0.25]),
        (("4.5", "3", ""), ",", [4.5, 3.0, None]),
        (("true", "FALSE", "yes"), ".", [1.0, 0.0, 1.0]),
        (("n", "t", " y"), ".", [0.0, 1.0, 1.0]),
    ],
)
def test_ratings_as_people_write_them(tmp_path, texts, decimal, expected):
    log = "user;item;timestamp;stars\n" + "".join(f"u;i{n};{n}{',5' if decimal == ',' else ''};{text}\n" for n, text in enumerate(texts))
    table = {**TABLE, "interactions": "log.csv", "separator": ";", "rating": "stars", "decimal": decimal}
    got = read(write(tmp_path / "raw", log__csv=log), "table", table=table)
    assert [row[3] for row in got.interactions] == expected and [row[2] for row in got.interactions] == [0, 1, 2]


def test_a_decimal_comma_of_another_kind_is_a_bad_row_and_times_keep_theirs(tmp_path):
    log = "user;item;when;stars\nu;a;Jan 05, 2024;1.234,5\nu;b;Jan 06, 2024;4,5\n"
    table = {**TABLE, "interactions": "log.csv", "separator": ";", "rating": "stars", "decimal": ",", "timestamp": "when"}
    got = read(write(tmp_path / "raw", log__csv=log), "table", table={**table, "time_format": "%b %d, %Y"})
    assert [row[2:4] for row in got.interactions] == [(1704499200, 4.5)] and [row[2] for row in got.rejected] == ["rating is not a number"]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_ratings_that_are_true_or_false(tmp_path, ending):
    (tmp_path / "raw").mkdir()
    store(LOG.head(2).with_columns(pl.Series("stars", [True, False])), tmp_path / f"raw/log.{ending}")
    got = read(tmp_path / "raw", "table", table={**TABLE, "interactions": f"log.{ending}", "rating": "stars"})
    assert [row[3] for row in got.interactions] == [1.0, 0.0]


@pytest.mark.parametrize("cell", ['["a", "b"]', "['a', 'b']", "['a' 'b']", "a b"])
def test_several_items_a_cell_also_as_a_list_written_out(tmp_path, cell):
    quoted = cell.replace('"', '""')
    log = f'user,item,timestamp\nu,"{quoted}",5\nu,"[]",6\nu,c,7\n'
    got = read(write(tmp_path / "raw", log__csv=log), "table", table={**TABLE, "interactions": "log.csv", "item_separator": " "})
    assert [row[1] for row in got.interactions] == ["a", "b", "c"] and got.rejected == []


def test_an_id_with_a_space_in_a_list_written_out_is_one(tmp_path):
    log = "user,item,timestamp\nu,\"['a b', 'c']\",5\n"
    got = read(write(tmp_path / "raw", log__csv=log), "table", table={**TABLE, "interactions": "log.csv", "item_separator": " "})
    assert [row[1] for row in got.interactions] == ["a b", "c"]


def test_lists_of_numbers_as_numpy_writes_them():
    assert written_list("[7 12\n 3]") == [7, 12, 3] and written_list("[7]") == [7] and written_list("[7 up]") is None


def test_items_that_the_item_file_lacks(tmp_path):
    log = [(f"u{user}", f"i{item}", item) for user in range(9) for item in range(4)]
    raw = raw_log(tmp_path / "raw", log, ["i0", "i1", ("i2", " "), "never"])
    with pytest.raises(StageError, match=r"18 x item is not in the item file(.|\n)*ingest.missing_items: id calls such items by their ids"):
        run(tmp_path, raw, min_interactions=1)
    out = run(tmp_path, raw, min_interactions=1, missing_items="id")
    items, metrics = pl.read_parquet(out / "items.parquet"), json.loads((out / "metrics.json").read_text())
    assert items.select("source_id", "title").rows() == [
        ("i0", "Thing i0"), ("i1", "Thing i1"), ("i2", "Item i2"), ("i3", "Item i3"), ("never", "Thing never"),
    ]  # fmt: skip
    assert metrics["interactions"] == len(log) and metrics["items_called_by_id"] == 2
    assert "called by their ids | 2" in (out / "card.md").read_text()
    out = run(tmp_path, raw, min_interactions=1, missing_items="drop")
    metrics = json.loads((out / "metrics.json").read_text())
    assert (
        metrics["interactions"] == 18
        and "items_called_by_id" not in metrics
        and "no title is left after cleaning" in metrics["rejected"][ITEM]
    )
