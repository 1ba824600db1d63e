"""Kinds of files that others wrote otherwise than they say: bytes in Parquet that are no UTF-8, headers with another separator."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.params import IngestParams
from stages.ingest.sources.source import read_source
from stages.shared.core.errors import StageError
from tests.support.raw_tables import FEW, folder_of

LOG, ITEMS = ("user", "item"), ("item", "title", "brand", "categories")
NO_UTF8 = st.tuples(st.binary(max_size=4), st.sampled_from([b"\xff", b"\xe9 ", b"\xc3(", b"\xed\xa0\x80"]), st.binary(max_size=4)).map(
    b"".join
)


def written(path: Path, columns: dict[str, list[bytes] | list[int]], wide: bool, as_dictionary: bool, group: int) -> None:
    """Texts unchecked, as libraries write them that do not look."""
    arrays = {}
    for name, values in columns.items():
        array = pa.array(values)
        if name != "timestamp":
            array = array.view(pa.string()) if not wide else array.cast(pa.large_binary()).view(pa.large_string())
            array = array.dictionary_encode() if as_dictionary else array
        arrays[name] = array
    pq.write_table(pa.table(arrays), path, row_group_size=group)


@FEW
@given(
    bad=NO_UTF8,
    place=st.integers(0, 3),
    where=st.sampled_from([*(("plays", name) for name in LOG), *(("songs", name) for name in ITEMS[1:])]),
    wide=st.booleans(),
    as_dictionary=st.booleans(),
    group=st.integers(1, 4),
)
def test_parquet_text_that_is_no_utf8(bad: bytes, place: int, where: tuple[str, str], wide: bool, as_dictionary: bool, group: int) -> None:
    ids = [f"i{row}".encode() for row in range(4)]
    columns: dict[str, dict[str, list[bytes] | list[int]]] = {
        "plays": {"user": [b"u"] * 4, "item": list(ids), "timestamp": [1, 2, 3, 4]},
        "songs": {name: list(ids) for name in ITEMS},
    }
    file, column = where
    columns[file][column][place] = bad  # type: ignore[call-overload]
    with folder_of() as folder:
        for name, values in columns.items():
            written(folder / f"{name}.parquet", values, wide, as_dictionary, group)
        table = {"interactions": "plays.parquet", "items": "songs.parquet", "brand": "brand", "categories": "categories"}
        with pytest.raises(StageError, match=rf"{file}\.parquet: the column '{column}' holds text that is not UTF-8 .*; convert it"):
            read_source(IngestParams(source="table", folder=str(folder), table=table), folder / "scratch")


@FEW
@given(
    separator=st.sampled_from([",", ";", "|", " ", ", "]),
    order=st.permutations(["user_id:token", "item_id:token", "rating:float", "timestamp:float"]),
    file=st.sampled_from(["inter", "item"]),
)
def test_a_header_with_another_separator_is_shown_whole(separator: str, order: list[str], file: str) -> None:
    header = order if file == "inter" else ["item_id:token", "title:token_seq"]
    good = {"inter": "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t3\n", "item": "item_id:token\ttitle:token_seq\n2\tA\n"}
    good[file] = separator.join(header) + "\n" + separator.join("1" * len(header)) + "\n"
    with folder_of() as folder:
        for ending, text in good.items():
            (folder / f"shop.{ending}").write_text(text)
        with pytest.raises(StageError) as raised:
            read_source(IngestParams(source="folder", folder=str(folder)), folder / "scratch")
    message = str(raised.value)
    assert message.startswith(f"shop.{file}, row 1: ")
    assert f"(found: {separator.join(header)}); it has one column, so the separator is another" in message
