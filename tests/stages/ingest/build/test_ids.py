import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.build.ids import code, densify, distinct, sorted_ids
from tests.support.raw_log import raw_log

ids = st.lists(st.text(max_size=4) | st.integers(0, 10**25).map(str) | st.sampled_from(["0", "00", "007", "7", "٣"]), unique=True)
numbers = st.lists(st.integers(0, 10**25).map(str) | st.sampled_from(["0", "00", "007", "7"]), unique=True)


def in_python(names: list[str]) -> list[str]:
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


@given(ids | numbers)
def test_ids_sort_by_number_only_if_all_are_numbers(names):
    assert sorted_ids(pl.Series(names, dtype=pl.String)).to_list() == in_python(names)


@given(numbers, st.data())
def test_densify_numbers_what_occurs(names, data):
    codes = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=20)) if names else []
    dense, kept = densify(np.array(codes, dtype=np.int32), pl.Series(names, dtype=pl.String))
    assert kept.to_list() == in_python(list({names[code] for code in codes}))
    assert [kept[number] for number in dense.tolist()] == [names[code] for code in codes]


def test_codes_stream_in_the_order_of_the_rows(tmp_path):
    raw = raw_log(tmp_path, [("b", "x", 1), ("a", "y", 2), ("b", "z", 3)])
    assert set(distinct(raw.interactions, "user")) == {"a", "b"}
    coded = pl.scan_parquet(raw.interactions).select(code("user", pl.Series(["a", "b"])), code("item", pl.Series(["z", "x"])))
    assert coded.collect().rows() == [(1, 1), (0, None), (1, 0)]
