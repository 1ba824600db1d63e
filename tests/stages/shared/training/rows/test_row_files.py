"""Rows on disk are the rows that were written, each once, whoever reads them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.lm.encoding import WeightedExample
from stages.shared.training.rows.row_files import InOrder, RowFiles, write_rows

single = st.floats(0, 8, width=32)
row = st.lists(st.tuples(st.integers(0, 2**32 - 1), single), min_size=1, max_size=9).flatmap(
    lambda pairs: st.builds(
        WeightedExample,
        st.just([token for token, _ in pairs]),
        st.just([weight for _, weight in pairs]),
        st.sets(st.integers(1, len(pairs)), max_size=3).map(lambda more: [0, *sorted(more)]),
        st.integers(0, 10_000),
    )
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(row, max_size=6), data=st.data())
def test_rows_come_back_in_their_order_each_written_once(tmp_path_factory, rows, data):
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12)) if rows else []
    wanted = [rows[place] for place in order]
    folder = tmp_path_factory.mktemp("rows") / "rows"
    write_rows(folder, wanted)
    found = RowFiles(folder)
    assert len(found) == len(wanted) and list(found) == wanted and found[1:4] == wanted[1:4]
    assert (folder / "ids").stat().st_size == 4 * sum(len(rows[place].ids) for place in set(order))
    turned = InOrder(found, list(range(len(wanted)))[::-1])
    assert list(turned) == wanted[::-1] and turned[:2] == wanted[::-1][:2]


def test_weights_are_those_of_a_batch(tmp_path):
    write_rows(tmp_path / "rows", [WeightedExample([1, 2], [0.0, 0.9])])
    assert RowFiles(tmp_path / "rows")[0].weights == [0.0, float(np.float32(0.9))]


def test_past_the_end(tmp_path):
    write_rows(tmp_path / "rows", [WeightedExample([1], [0.0])])
    with pytest.raises(IndexError):
        RowFiles(tmp_path / "rows")[1]
