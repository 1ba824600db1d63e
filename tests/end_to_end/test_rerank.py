"""gr2 rerank on a finished run gives the orders that its evaluation recorded."""

import polars as pl
import pytest

from tests.support.project_clone import SmokeRun, gr2

pytestmark = pytest.mark.slow


def test_the_orders_are_those_of_evaluate(smoke: SmokeRun, tmp_path) -> None:
    data = smoke.root / "data"
    recorded = pl.read_parquet(data / "evaluate/outputs.parquet").filter((pl.col("model") == "rl") & (pl.col("kind") == "greedy"))
    slates = pl.read_parquet(data / "retrieve/slates.parquet").join(recorded.select(pl.col("slate").cast(pl.Int32)), on="slate", how="semi")
    slates.sort("slate").write_parquet(tmp_path / "slates.parquet")
    gr2(smoke.root, "rerank", str(tmp_path / "slates.parquet"), "--ids", "number", "--output", str(tmp_path / "orders.parquet"))
    found = pl.read_parquet(tmp_path / "orders.parquet")
    recorded = recorded.sort("slate")
    assert found.height == 40 and found["id"].to_list() == [str(slate) for slate in recorded["slate"]]
    assert found["index"].to_list() == recorded["order"].to_list()
    assert (found["fallback"] == "").to_list() == (recorded["fault"] == "").to_list()
    reasons = zip(found["reasoning"], recorded["text"], strict=True)
    assert all(text.partition("</think>")[0].strip() == reason for reason, text in reasons)
