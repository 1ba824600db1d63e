"""Kinds of faulty input, each over formats, columns, units and nestings: the right value, a row with its reason, or an error by name."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.build.pairs import read_pairs
from stages.ingest.build.text import title_and_year
from stages.ingest.params import IngestParams
from stages.ingest.readers import parquet
from stages.ingest.readers.forget import digest
from stages.ingest.sources.source import read_source
from stages.shared.core.errors import StageError
from tests.support.raw_reading import read, write
from tests.support.raw_tables import FEW, FORMATS, SECOND, folder_of, play, put, read_tables, song

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
COARSER = [(unit, given) for given, many in PER_SECOND.items() for unit, more in PER_SECOND.items() if more > many]


# Time


@FEW
@given(ending=st.sampled_from(FORMATS), unit=st.sampled_from(list(PER_SECOND)), order=st.permutations(range(4)), data=st.data())
def test_order_below_a_second(ending: str, unit: str, order: list[int], data: st.DataObject) -> None:
    """Whole units or fractions of them, times after and before 1970: the order is that of the times to the last nanosecond."""
    floats = ending == "parquet" and unit == "s"
    finest = 10**3 if floats else 10**9  # what a float has left behind a time in seconds
    parts = sorted(data.draw(st.sets(st.integers(0, finest - 1), min_size=4, max_size=4)))
    start = data.draw(st.sampled_from([SECOND, -SECOND, -1, 0]))
    exact = [Decimal(start) + Decimal(part) / finest for part in parts]
    times = [time * PER_SECOND[unit] for time in exact]
    as_whole = all(time == int(time) for time in times)
    values = [int(time) if as_whole else float(time) if floats else time for time in times]
    if ending.startswith("jsonl"):
        values = [int(value) if as_whole else str(value) for value in values]
    with folder_of() as folder:
        plays = put(folder, "plays", [play(f"i{place}", values[place]) for place in order], ending)
        songs = put(folder, "songs", [song(f"i{place}") for place in range(4)], "csv")
        table = {"interactions": plays, "items": songs, "time_unit": unit}
        log = read_source(IngestParams(source="table", folder=str(folder), table=table), folder / "scratch")
        codes = read_pairs(log, pl.Series([f"i{place}" for place in range(4)]), 0.0).table
    assert codes["item"].to_list() == [0, 1, 2, 3] and set(codes["timestamp"]) == {start}


@FEW
@given(
    ending=st.sampled_from(FORMATS),
    units=st.sampled_from(COARSER),
    fraction=st.booleans(),
    bad=st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_a_unit_declared_finer_than_it_is(ending: str, units: tuple[str, str], fraction: bool, bad: list[bool]) -> None:
    declared, given_unit = units
    right, wrong = SECOND * PER_SECOND[declared], SECOND * PER_SECOND[given_unit]
    times: list[Any] = [wrong + (0.5 if fraction else 0) if is_bad else right for is_bad in bad]
    got = read_tables([play("i", time) for time in times], [song("i")], ending, time_unit=declared)
    first = 1 if ending in ("parquet", "jsonl", "jsonl.gz") else 2
    assert [row[1] for row in got.rejected] == [first + place for place, is_bad in enumerate(bad) if is_bad]
    assert {row[2][:19] for row in got.rejected} <= {"timestamp is not in "[:19]}
    assert {row[2] for row in got.interactions} <= {SECOND}


# Shape

names = st.text(st.characters(min_codepoint=32, max_codepoint=0x17F, exclude_characters="[]{}\\|<>&\x7f"), min_size=1, max_size=8)
clean = names.map(str.strip).filter(lambda name: name and name[0] not in "'\"" and name[-1] not in "'\"")
NAME_KEYS = st.sampled_from(["name", "description", "title", "label"])


def nested(found: list[str], nesting: str, key: str) -> Any:
    objects = [{"id": place, key: name} for place, name in enumerate(found)]
    return {"list": found, "paths": [found, ["Other"]], "objects": objects, "paths of objects": [objects, [{"id": 9, key: "Other"}]]}[
        nesting
    ]


@FEW
@given(
    found=st.lists(clean, min_size=1, max_size=3),
    nesting=st.sampled_from(["list", "paths", "objects", "paths of objects"]),
    key=NAME_KEYS,
    ending=st.sampled_from(FORMATS),
    written=st.sampled_from(["python", "json"]),
    separator=st.sampled_from([",", "|", ";"]),
)
def test_categories_in_every_nesting(found: list[str], nesting: str, key: str, ending: str, written: str, separator: str) -> None:
    """As values of JSON and Parquet; in a cell of CSV, or as the text of one, as Python or JSON writes them."""
    value = nested(found, nesting, key)
    text = repr(value) if written == "python" else json.dumps(value, ensure_ascii=False)
    as_text = not ending.startswith(("jsonl", "parquet"))
    got = read_tables(
        [play("a")], [song("a", kinds=text if as_text else value)], "csv", ending, categories="kinds", category_separator=separator
    )
    assert got.items[0][4] == found and not got.rejected
    if not as_text:
        got = read_tables([play("a")], [song("a", kinds=text)], "csv", ending, categories="kinds", category_separator=separator)
        assert got.items[0][4] == found and not got.rejected


NO_TEXT = st.sampled_from([{"$numberInt": "3"}, {"a": 1}, [1, 2], ["a", ["b"]], True, False, [{"x": 1}]])


@FEW
@given(value=NO_TEXT, column=st.sampled_from(["title", "brand", "year", "categories", "rating", "user", "id", "timestamp"]))
def test_json_values_of_another_shape_are_no_missing_ones(value: Any, column: str) -> None:
    plays, songs = [play("a"), play("b")], [song("a", brand="B", year=1999, categories=["C"]), song("b")]
    keys = {"brand": "brand", "year": "year", "categories": "categories", "rating": "stars"}
    if column in ("title", "brand", "year", "categories"):
        songs[0] |= {column: value}
    else:
        plays[0] |= {{"rating": "stars", "id": "item"}.get(column, column): value}
    plays[1] |= {"stars": 4}
    if column == "categories" and value == [1, 2]:
        return  # numbers are names of categories
    got = read_tables(plays, songs, "jsonl", "jsonl", **keys)
    [(file, row, reason, _)] = got.rejected
    assert (file, row) == ("songs.jsonl" if column in ("title", "brand", "year", "categories") else "plays.jsonl", 1)
    assert reason.split()[0] in ("field", "categories", "a", "rating", "empty", "timestamp")


@FEW
@given(
    dtype=st.sampled_from(
        [
            pl.List(pl.Boolean),
            pl.List(pl.Struct({"id": pl.Int64})),
            pl.Struct({"name": pl.String}),
            pl.Boolean,
            pl.Binary,
            pl.List(pl.List(pl.List(pl.String))),
        ]
    ),
    column=st.sampled_from(["title", "brand", "year", "categories", "item"]),
)
def test_parquet_columns_of_another_shape_are_named(dtype: pl.DataType, column: str) -> None:
    frame = pl.DataFrame({"item": ["a"], "title": ["A"], "brand": ["B"], "year": [1999], "categories": [["C"]]})
    frame = frame.with_columns(pl.Series(column, [None], dtype=dtype))
    with folder_of() as folder:
        put(folder, "plays", [play("a")], "csv")
        frame.write_parquet(folder / "songs.parquet")
        keys = {name: name for name in ("brand", "year", "categories")}
        with pytest.raises(StageError, match=rf"songs\.parquet: the column '{column}' (is|holds)"):
            read(folder, "table", table={"interactions": "plays.csv", "items": "songs.parquet", **keys})


@FEW
@given(
    year=st.integers(1000, 2999),
    form=st.sampled_from(["{}", "{}.0", "{}.00", "{}-05-01", "{}-05", " {} "]),
    ending=st.sampled_from(FORMATS),
)
def test_years_in_every_form(year: int, form: str, ending: str) -> None:
    """Whole numbers of floats stand beside missing ones; dates begin with the year."""
    text = form.format(year)
    value: Any = float(text) if ending in ("parquet", "jsonl") and form.endswith("0") else text
    got = read_tables([play("a")], [song("a", y=value), song("b", y=None)], "csv", ending, year="y")
    assert [title_and_year("A", item[2].strip())[1] for item in got.items] == [year, None]


@FEW
@given(
    ending=st.sampled_from(["csv", "tsv", "jsonl", "parquet", "inter"]),
    column=st.sampled_from(["user", "item", "timestamp"]),
    place=st.integers(0, 3),
)
def test_a_column_that_stands_twice(ending: str, column: str, place: int) -> None:
    columns = ["user", "item", "timestamp"]
    columns.insert(place, column)
    with folder_of(songs__csv="item,title\na,A\n", x__item="item_id:token\ttitle:token_seq\na\tA\n") as folder:
        if ending == "parquet":
            pq.write_table(pa.Table.from_arrays([pa.array([5])] * 4, columns), folder / "plays.parquet")
        elif ending == "jsonl":
            write(
                folder,
                plays__jsonl="{" + ", ".join(f'"{name}": {{"deep": 1, "deeper": 2}}' if 0 else f'"{name}": 5' for name in columns) + "}\n",
            )
        else:
            separator = "," if ending == "csv" else "\t"
            typed = [f"{name}_id:token" if name != "timestamp" else "timestamp:float" for name in columns]
            (folder / ("x.inter" if ending == "inter" else f"plays.{ending}")).write_text(
                separator.join(typed if ending == "inter" else columns) + "\n" + separator.join("5555") + "\n"
            )
        with pytest.raises(StageError, match=rf"'{column}(_id)?' stands twice; rename one of them"):
            if ending == "inter":
                (folder / "songs.csv").unlink()
                read(folder)
            read(folder, "table", table={"interactions": f"plays.{ending}", "items": "songs.csv"})


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("movielens-100k", ("u.data", "u.item")),
        ("movielens-1m", ("ratings.dat", "movies.dat")),
        ("movielens-25m", ("ratings.csv", "movies.csv")),
        ("amazon-2014", ("reviews_C_5.json", "meta_C.json")),
        ("amazon-2018", ("C.json.gz", "meta_C.json.gz")),
        ("amazon-2023", ("C.jsonl", "meta_C.jsonl")),
        ("folder", ("sequences.txt", "items.jsonl")),
        ("folder", ("x.inter", "x.item")),
        *[("table", (f"plays.{ending}", "songs.csv")) for ending in FORMATS],
    ],
)
def test_a_folder_where_a_file_is_meant(tmp_path: Path, source: str, files: tuple[str, str]) -> None:
    """As Spark writes one, a folder of parts under the name of the file."""
    for name in files:
        (tmp_path / name).mkdir()
        (tmp_path / name / "part-00000").write_text("x")
    keys = {"category": "C"} if source.startswith("amazon") else {}
    table = {"table": {"interactions": files[0], "items": files[1]}} if source == "table" else {}
    with pytest.raises(StageError, match=rf"{files[0]}: a folder, not a file; put its parts together"):
        read(tmp_path, source, **keys, **table)


@FEW
@given(
    shape=st.sampled_from(["array", "lines of arrays", "python", "indented", "objects in an array"]),
    ending=st.sampled_from(["jsonl", "jsonl.gz"]),
    count=st.integers(1, 3),
)
def test_files_that_are_no_json_lines(shape: str, ending: str, count: int) -> None:
    rows = [play("a", SECOND + place) for place in range(count)]
    text = {
        "array": json.dumps(rows),
        "lines of arrays": "\n".join(json.dumps([*row.values()]) for row in rows),
        "python": "\n".join(map(repr, rows)),
        "indented": json.dumps(rows[0], indent=1),
        "objects in an array": "[\n" + ",\n".join(map(json.dumps, rows)) + ",\n]",
    }[shape]
    with folder_of(songs__csv="item,title\na,A\n") as folder:
        (folder / f"plays.{ending}").write_bytes(gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode())
        called = {"python": "a Python literal, not valid JSON", "indented": "not valid JSON"}.get(shape, "a JSON array")
        with pytest.raises(StageError, match=rf"plays\.{ending}, row 1: {called}; no line of the file is a JSON object"):
            read(folder, "table", table={"interactions": f"plays.{ending}", "items": "songs.csv"})


# Identity

big_ids = st.one_of(st.integers(2**53, 2**54), st.integers(2**63 - 2, 2**64 + 2), st.integers(10**20, 10**25))


@FEW
@given(ids=st.lists(big_ids, min_size=2, max_size=6, unique=True), ending=st.sampled_from(FORMATS), quoted_ids=st.booleans())
def test_one_user_an_id_however_long(ids: list[int], ending: str, quoted_ids: bool) -> None:
    """As text in every format; as numbers wherever the format has them."""
    as_text = quoted_ids or (ending == "parquet" and max(ids) >= 2**64)
    plays = [play("a", user=str(number) if as_text else number) for number in ids]
    with folder_of(songs__csv="item,title\na,A\n") as folder:
        name = put(folder, "plays", plays, ending)
        if ending == "parquet" and not as_text:
            pl.DataFrame({"user": pl.Series(ids, dtype=pl.UInt64), "item": ["a"] * len(ids), "timestamp": [1] * len(ids)}).write_parquet(
                folder / name
            )
        table = {"interactions": name, "items": "songs.csv"}
        got = read(folder, "table", table=table)
        forgotten = read(folder, "table", table=table, forget=[digest(str(ids[0]), "salt")], forget_salt="salt")
    assert [row[0] for row in got.interactions] == list(map(str, ids))
    assert [row[0] for row in forgotten.interactions] == list(map(str, ids[1:]))


@FEW
@given(
    number=st.integers(0, 2**50),
    others=st.lists(st.sampled_from([0.5, 7.25, None]), max_size=3),
    ending=st.sampled_from(["jsonl", "parquet"]),
    size=st.integers(1, 3),
    dtype=st.sampled_from([pl.Float64, pl.Decimal(38, 2)]),
)
def test_a_whole_number_is_one_id_in_every_type(
    number: int, others: list[float | None], ending: str, size: int, dtype: pl.DataType
) -> None:
    """7, 7.0 and 7.00, whatever else stands beside it in a batch; and who asks to be forgotten is found in all."""
    users = [float(number), *others, float(number)]
    with folder_of(songs__csv="item,title\na,A\n") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_BATCH", size)
        if ending == "jsonl":
            put(folder, "plays", [play("a", user=user) for user in [number, *users[1:]]], ending)
        else:
            frame = pl.DataFrame({"user": users, "item": "a", "timestamp": 1})
            frame.with_columns(pl.col("user").cast(dtype)).write_parquet(folder / "plays.parquet")
        table = {"interactions": f"plays.{ending}", "items": "songs.csv"}
        got = read(folder, "table", table=table)
        forgotten = read(folder, "table", table=table, forget=[digest(str(number), "")])
    assert [row[0] for row in got.interactions] == [str(number), *(str(other) for other in others if other is not None), str(number)]
    assert [row[0] for row in forgotten.interactions] == [str(other) for other in others if other is not None]


# What works stays


@FEW
@given(ending=st.sampled_from(FORMATS), ids=st.permutations(["007", "7", "07", "7.0", "٧"]))
def test_ids_that_are_text_stay_apart(ending: str, ids: list[str]) -> None:
    got = read_tables([play("a", user=user) for user in ids], [song("a")], ending)
    assert [row[0] for row in got.interactions] == ids


@FEW
@given(ending=st.sampled_from(FORMATS), unit=st.sampled_from(list(PER_SECOND)), seconds=st.integers(-(2**33), -1))
def test_times_before_1970(ending: str, unit: str, seconds: int) -> None:
    seconds = max(seconds, -(2**63) // 10**9 + 1) if unit == "ns" else seconds
    got = read_tables([play("a", seconds * PER_SECOND[unit])], [song("a")], ending, time_unit=unit)
    assert [row[2] for row in got.interactions] == [seconds] and not got.rejected


@FEW
@given(ending=st.sampled_from(["csv.gz", "jsonl.gz"]), zeros=st.integers(1, 2000), parts=st.integers(1, 2))
def test_zeros_behind_gzip(ending: str, zeros: int, parts: int) -> None:
    """Tapes and disks pad files; a file may also be several of them put together."""
    with folder_of(songs__csv="item,title\na,A\n") as folder:
        path = folder / put(folder, "plays", [play("a")], ending)
        path.write_bytes(path.read_bytes() + gzip.compress(b"\n") * (parts - 1) + b"\x00" * zeros)
        assert len(read(folder, "table", table={"interactions": path.name, "items": "songs.csv"}).interactions) == 1


@FEW
@given(title=st.lists(st.sampled_from(['"', "'", "a", " ", ",", '""']), min_size=1, max_size=6).map("".join).filter(str.strip))
def test_quotes_are_text_in_tsv(title: str) -> None:
    got = read_tables([play("a")], [song("a") | {"title": title}, song("b")], "tsv", "tsv")
    assert [item[1] for item in got.items] == [title, "Tb"] and not got.rejected
