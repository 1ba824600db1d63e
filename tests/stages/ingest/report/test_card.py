import json
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.report.describe import gini
from stages.shared.core.outputs import read_json
from tests.support.raw_log import ITEM, LOG, raw_log, run

RANDOM = random.Random(3)
LOG_ROWS = [(f"u{RANDOM.randrange(12)}", f"i{int(20 * RANDOM.random() ** 2)}", RANDOM.randrange(10**9, 10**9 + 10**6)) for _ in range(400)]
PARAMS = {"min_interactions": 5, "min_base": 3, "valid_positions": 1, "test_positions": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("card")
    return run(tmp_path, raw_log(tmp_path / "raw", [*LOG_ROWS, ("short", "i0", 5)]), **PARAMS)


def test_the_numbers_against_pandas(made):
    metrics = read_json(made / "metrics.json")
    table = pd.read_parquet(made / "interactions.parquet")
    items = pd.read_parquet(made / "items.parquet")
    users = table["user"].nunique()
    assert (metrics["users"], metrics["items"], metrics["interactions"]) == (users, len(items), len(table))
    assert metrics["sparsity"] == pytest.approx(1 - len(table) / users / len(items), abs=1e-6)
    assert metrics["dropped"]["duplicates"] == len(LOG_ROWS) - len({row[:2] for row in LOG_ROWS})
    assert metrics["items_without_interactions"] == len(items) - table["item"].nunique()

    popularity = table.groupby("item").size().reindex(items["item"], fill_value=0)
    for key, counts in (("sequence_length", table.groupby("user").size()), ("item_popularity", popularity)):
        shares = {"min": 0, "p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1}
        for name, share in shares.items():
            assert metrics[key][name] == pytest.approx(counts.quantile(share), abs=0.006)
        assert metrics[key]["mean"] == pytest.approx(counts.mean(), abs=0.006)

    for name, own in metrics["splits"].items():
        rows = table[table["split"] == name]
        assert (own["interactions"], own["users"], own["items"]) == (len(rows), rows["user"].nunique(), rows["item"].nunique())
        assert own["time"]["first_date"] == pd.Timestamp(rows["timestamp"].min(), unit="s").isoformat() + "Z"
        assert own["time"]["last_date"] == pd.Timestamp(rows["timestamp"].max(), unit="s").isoformat() + "Z"
        assert metrics["by_split"][name] == len(rows)
    ranked = table[table["split"] == "test"]["user"].nunique()
    assert metrics["users_all_base"] == users - ranked

    trained = set(table[table["split"].isin(["base", "train"])]["item"])
    held = set(table["item"]) - trained
    test = table[table["split"] == "test"]["item"]
    assert metrics["cold"]["items_only_in_valid_or_test"] == len(held)
    assert metrics["cold"]["test_targets_unseen_in_base"] == (~test.isin(table[table["split"] == "base"]["item"])).sum()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
def test_gini_is_half_the_relative_mean_difference(counts):
    differences = np.abs(np.subtract.outer(counts, counts)).mean()
    assert gini(np.array(counts)) == pytest.approx(differences / (2 * np.mean(counts)), abs=1e-6)


def test_gini_at_its_ends():
    assert gini(np.array([4, 4, 4])) == 0.0
    assert gini(np.array([0] * 99 + [5])) == 0.99


def test_the_card_holds_the_numbers(made):
    card, metrics = (made / "card.md").read_text(encoding="utf-8"), read_json(made / "metrics.json")
    lines = card.splitlines()
    assert lines[0] == "# Data card: A log \\| by hand" and "Licence: none" in lines
    for words in (
        f"| interactions | {metrics['interactions']:,} |",
        f"| time | {metrics['time']['first_date']} to {metrics['time']['last_date']} |",
        f"| - repeats of a user's item; the earliest stays | {metrics['dropped']['duplicates']} |",
        "| rows of the log | 401 |",
        f"| {LOG} | 1,234 | `{'ab' * 32}` |",
        "| (user, item) pairs in two splits | 0 |",
        "None.",
    ):
        assert words in lines, words
    assert f"{metrics['item_popularity']['gini']:.3f}" in card
    for heading in ("Splits", "Lengths and popularity", "From the raw log to the table", "Rejected rows", "Leak checks", "Raw files"):
        assert f"## {heading}" in lines
    widths = {line.count("|") for line in lines if line.startswith("| base") or line.startswith("| split")}
    assert len(widths) == 1


def test_rejected_rows_by_file_and_reason(tmp_path):
    rejected = [(ITEM, 30, "no title", ""), (LOG, 500, "empty user id", "")] + [(LOG, row, "empty item id", "") for row in (501, 502)]
    out = run(tmp_path, raw_log(tmp_path / "raw", LOG_ROWS, rejected=rejected), max_bad_share=0.2, **PARAMS)
    lines = (out / "card.md").read_text().splitlines()
    assert [line for line in lines if line.startswith((f"| {LOG} | e", f"| {ITEM} | n"))] == [
        f"| {LOG} | empty item id | 2 |",
        f"| {LOG} | empty user id | 1 |",
        f"| {ITEM} | no title | 1 |",
    ]


def test_items_that_share_a_text_are_all_counted(tmp_path):
    taken = sorted({row[1] for row in LOG_ROWS})
    titles = [(item, "Lamp" if place < 3 else "Desk" if place < 5 else item) for place, item in enumerate(taken)]
    out = run(tmp_path, raw_log(tmp_path / "raw", LOG_ROWS, titles), **PARAMS)
    assert "| items that share their text with another | 5 |" in (out / "card.md").read_text()


def test_places_are_no_dates(tmp_path):
    out = run(tmp_path, raw_log(tmp_path / "raw", LOG_ROWS, time="order"), **PARAMS)
    assert "| time | order only |" in (out / "card.md").read_text()
    assert "date" not in json.dumps(read_json(out / "metrics.json"))


def test_dates_beyond_the_calendar_of_datetime(tmp_path):
    rows = [("u", str(place), moment) for place, moment in enumerate([-(2**40) + 1, 0, 2**40 - 1])]
    metrics = read_json(run(tmp_path, raw_log(tmp_path / "raw", rows), min_interactions=1) / "metrics.json")
    assert metrics["time"]["first_date"].startswith("-32873-") and metrics["time"]["last_date"].startswith("36812-")


def test_equal_inputs_give_equal_bytes(tmp_path, made):
    again = run(tmp_path, raw_log(tmp_path / "raw", [*LOG_ROWS, ("short", "i0", 5)]), **PARAMS)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {path.name: path.read_bytes() for path in made.iterdir()}
