"""`retrieve.model: given`: slates that were logged become slates of the pipeline, or are refused by name."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest

from stages.evaluate.leak_checks import check_grades, check_histories, check_targets, check_test_is_later
from stages.retrieve.given.files import read_tables
from stages.retrieve.given.impression import Impression, Refused
from stages.retrieve.params import GivenParams, RetrieveParams
from stages.retrieve.retrieve import retrieve
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA, read_json, stage_outputs
from stages.shared.core.schemas import read_slate_table
from stages.shared.slates.candidate_features import read_candidate_features
from stages.shared.slates.slate import load_slates
from tests.support.logged_slates import BASE, LOG, given_params, logged_slates, write_csv, write_jsonl, write_users
from tests.support.retrieve_project import SPLITS, USERS, interactions, own_items


@pytest.fixture
def log(project):
    write_users(project)
    rows = logged_slates()
    write_jsonl(project / LOG, rows)
    return rows


def run(params: RetrieveParams | None = None) -> pl.DataFrame:
    with stage_outputs("retrieve") as outputs:
        retrieve(params or given_params(), outputs)
    return read_slate_table(DATA / "retrieve/slates.parquet")


def given() -> dict[str, Any]:
    return dict(read_json(DATA / "retrieve/metrics.json")["given"])


def test_every_logged_slate_stands_where_its_target_was_taken(project, log) -> None:
    slates = run()
    assert slates.height == len(log) == USERS * (len(SPLITS) - BASE)
    for row, (user, position) in zip(
        slates.iter_rows(named=True), ((u, p) for u in range(USERS) for p in range(BASE, len(SPLITS))), strict=True
    ):
        shown = log[row["slate"]]
        assert (row["user"], row["position"], row["split"], row["timestamp"]) == (user, position, SPLITS[position], shown["time"])
        assert row["candidates"] == list(map(int, shown["candidates"]))
        assert row["target"] == own_items(user)[position] == row["candidates"][row["target_rank"]]
        assert row["history"] == own_items(user)[max(0, position - 4) : position]
        assert row["grades"] == [int(rank == row["target_rank"]) for rank in range(len(row["candidates"]))]
        assert row["scores"] == [-float(rank) for rank in range(len(row["candidates"]))] and row["propensities"] is None
    table = interactions()
    for check in (check_test_is_later, check_histories, check_targets, check_grades):
        check(slates, table)


def test_features_and_figures_are_of_the_candidates_there_are(project, log) -> None:
    slates, table = run(), read_candidate_features(DATA / "retrieve/candidate_features.parquet")
    assert table.select("slate", "item").rows() == slates.select("slate", "candidates").explode("candidates").rows()
    assert table.null_count().sum_horizontal().item() == 0 and not table["co"].is_nan().any()
    loaded = load_slates(slates, table, "train")
    assert all(len(slate.bins) == len(slate.candidates) == len(slate.grades) for slate in loaded)
    figures, lengths = given(), [len(row["candidates"]) for row in log]
    assert figures["slates"] == len(log) and figures["candidates_longest"] == max(lengths)
    assert [place["shown"] for place in figures["places"]] == [sum(n > place for n in lengths) for place in range(max(lengths))]
    taken = Counter(row["candidates"].index(row["taken"][0]) for row in log)
    assert [place["taken"] for place in figures["places"]] == [taken[place] for place in range(max(lengths))]
    assert f"| 1 | {len(log):,} | {taken[0]:,} |" in (DATA / "retrieve/model/card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "jsonl.gz", "utf-16-le csv", "utf-16-be jsonl"])
def test_every_form_gives_the_same_slates(project, log, form: str) -> None:
    expected = run()
    encoding, _, form = form.rpartition(" ")
    rows, path = [{**row, "time": row["time"] * 1000} for row in log], project / f"other.{form}"
    if form == "parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + "".join(f"{json.dumps(row)}\n" for row in rows).encode()))
    elif form == "jsonl":
        write_jsonl(path, rows)
    else:
        write_csv(path, rows, "|")
    if encoding:
        path.write_bytes(("\ufeff" + path.read_text()).encode(encoding))
    assert run(given_params(path.name, time_unit="ms", separator="|")).equals(expected)
    if encoding:
        assert given()["converted"] == {path.name: encoding.upper().replace("-LE", ", little-endian").replace("-BE", ", big-endian")}
        assert f"read from {given()['converted'][path.name]}" in (DATA / "retrieve/model/card.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("placed", [True, False])
def test_a_row_a_shown_item_gives_the_same_slates(project, log, form: str, placed: bool) -> None:
    """With places the rows may stand anywhere; without, they stand as the items were shown, lists among each other."""
    expected = run()
    rows = [
        {"list": f"L{number}", "who": row["user"], "at": row["time"], "what": item, "rank": rank, "hit": int(item in row["taken"])}
        for number, row in enumerate(log)
        for rank, item in enumerate(row["candidates"])
    ]
    if placed:
        rows = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    else:
        rows.sort(key=lambda row: row["rank"])
    path = project / f"rows.{form}"
    if form == "csv":
        path.write_text("\n".join([";".join(rows[0]), *(";".join(map(str, row.values())) for row in rows)]) + "\n")
    elif form == "jsonl":
        write_jsonl(path, [{**row, "hit": bool(row["hit"]) or None} for row in rows])
    else:
        pl.DataFrame(rows).with_columns(pl.col("hit") == 1).write_parquet(path)
    columns = {"slate": "list", "user": "who", "time": "at", "candidates": "what", "taken": "hit", "place": "rank" if placed else ""}
    assert run(given_params(path.name, **columns, column_separator=";" if form == "csv" else "")).equals(expected)


def test_marks_behind_the_candidates_say_what_was_taken(project, log) -> None:
    expected = run()
    rows = [{**row, "candidates": [f"{item}-{int(item in row['taken'])}" for item in row["candidates"]]} for row in log]
    write_jsonl(project / "marked.jsonl", rows)
    assert run(given_params("marked.jsonl", taken="")).equals(expected)
    write_jsonl(project / "marked.jsonl", [*rows, {**rows[0], "candidates": ["3", "4"]}])
    run(given_params("marked.jsonl", taken=""))
    assert given()["refused"] == {"marked.jsonl": {"a candidate without -0 or -1 behind it, which say what was taken": 1}}


BAD_ROWS = {
    "a row without the id of its list": {"slate": ""},
    "two items of a list have one place": {"place": 0},
    "the rows of a list name several users": {"user": "u1"},
    "a place is not a number": {"place": "first"},
    "a grade is not a number": {"hit": "maybe"},
    "a candidate stands twice": {"item": "3"},
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_lists_of_rows_that_cannot_be_right(tmp_path, reason: str) -> None:
    good = {"slate": "a", "user": "u0", "time": 1_000_000_000, "hit": 1}
    rows = [{**good, "item": "3", "place": 0}, {**good, "item": "4", "place": 1, "hit": 0}]
    rows[1] |= BAD_ROWS[reason]
    write_jsonl(tmp_path / "rows.jsonl", [*rows, {**good, "slate": "b", "item": "5", "place": 0}])
    params = GivenParams(slate="slate", place="place", candidates="item", taken="hit")
    found = [(number, str(read)) for _, number, read in read_tables(tmp_path / "rows.jsonl", params) if isinstance(read, Refused)]
    assert found == [(2 if "without" in reason else 1, reason)]


def test_times_in_a_form_of_their_own(tmp_path) -> None:
    row = {"user": "u", "time": "05.03.2024 13:00", "candidates": ["1", "2"], "taken": ["1"]}
    write_jsonl(tmp_path / "a.jsonl", [row, {**row, "time": "2024-03-05"}])
    (_, _, first), (_, _, second) = read_tables(tmp_path / "a.jsonl", GivenParams(time_format="%d.%m.%Y %H:%M"))
    assert isinstance(first, Impression) and first.time == datetime(2024, 3, 5, 13, tzinfo=UTC).timestamp()
    assert "time_format" in str(second)


def test_iso_times_and_logged_scores(project, log) -> None:
    rows = [{**row, "time": datetime.fromtimestamp(row["time"], UTC).isoformat(), "scores": [0.5] * len(row["candidates"])} for row in log]
    expected = run()
    write_jsonl(project / LOG, rows)
    slates = run(given_params(scores="scores"))
    assert slates.drop("scores").equals(expected.drop("scores")) and set(slates["scores"].explode()) == {0.5}


def test_a_label_for_each_candidate_says_what_was_taken(project, log) -> None:
    expected = run()
    labelled = [{**row, "labels": [3 * int(item in row["taken"]) for item in row["candidates"]]} for row in log]
    pl.DataFrame(labelled).write_parquet("labelled.parquet")
    slates = run(given_params("labelled.parquet", taken="candidates", grades="labels"))
    assert slates.drop("grades").equals(expected.drop("grades"))
    assert slates["grades"].to_list() == [[3 * grade for grade in own] for own in expected["grades"]]


BAD = {
    "no candidates": {"candidates": [], "taken": []},
    "a candidate stands twice": {"candidates": ["3", "3", "4"], "taken": ["4"]},
    "a taken item is not among the candidates": {"candidates": ["3", "4"], "taken": ["5"]},
    "a candidate is not in the catalogue (data/ingest/items.parquet)": {"candidates": ["999", "4"], "taken": ["4"]},
    "a taken item is not in the user's log": {"candidates": ["23", "24"], "taken": ["24"]},
    "no time, or none that can be read": {"time": "yesterday"},
    "a time that no log has: another retrieve.given.time_unit?": {"time": 1_000_000_000_000_000},
    "shown a year or more before the log begins: another retrieve.given.time_unit?": {"time": 1_000_000},
    "no user": {"user": ""},
}


@pytest.mark.parametrize("reason", BAD)
def test_a_row_that_cannot_be_right_is_refused_by_name(project, log, reason: str) -> None:
    write_jsonl(project / LOG, [log[0] | BAD[reason], *log[1:]])
    slates = run()
    assert slates.height == len(log) - 1 and given()["refused"] == {LOG: {reason: 1}}
    assert pl.read_parquet(DATA / "retrieve/model/quarantine.parquet").rows() == [(LOG, 1, reason)]


def test_too_many_of_them_fail_the_stage_with_file_row_and_reason(project, log) -> None:
    write_jsonl(project / LOG, [*log[:-9], *(row | {"taken": ["24", "24"]} for row in log[-9:])])
    said = rf"{LOG}: 9 of {len(log)} .*max_bad_share.*\n  9 times: a taken item stands twice \(first: row {len(log) - 8}\)"
    with pytest.raises(StageError, match=said):
        run()
    assert not (DATA / "retrieve").exists() and pl.read_parquet(".gr2/quarantine/retrieve.parquet").height == 9


def test_what_teaches_nothing_is_left_out_and_counted(project, log) -> None:
    first = own_items(0)
    more = [
        {**log[0], "user": "nobody"},
        {**log[0], "taken": []},
        {**log[0], "candidates": log[0]["taken"]},
        {**log[0], "candidates": list(map(str, range(10)))},
        {**log[0], "time": 1_000_000_000 - 60, "candidates": ["24", str(first[2])], "taken": [str(first[2])]},  # of the base split
        {**log[0], "time": log[-1]["time"] + 10_000, "candidates": ["24", str(first[2])], "taken": [str(first[2])]},
        {**log[0], "candidates": ["24", *log[0]["taken"]]},
    ]
    write_jsonl(project / LOG, [*log, *more])
    assert run().height == len(log)
    assert given()["left_out"] == {
        "the user is not in the log, or was left out of it by ingest": 1,
        "nothing was taken": 1,
        "one candidate alone": 1,
        "longer than retrieve.candidates": 1,
        "in the base split, which the statistics are counted from": 1,
        "takes again what the user took before": 1,
        "an earlier slate says that the same was taken from it": 1,
    }


def test_a_slate_shown_earlier_knows_less(project, log) -> None:
    """The history ends when the slate was shown, not when its item was taken."""
    earlier = {**log[1], "time": log[1]["time"] - 95}
    write_jsonl(project / LOG, [log[0], earlier, *log[2:]])
    slates = run()
    assert slates["history"][1].to_list() == own_items(0)[BASE - 4 : BASE] and slates["position"][1] == BASE + 1
    check_histories(slates, interactions())


def test_a_split_without_slates_says_what_was_left_out(project, log) -> None:
    write_jsonl(project / LOG, [row for row in log if row["time"] < 1_000_000_000 + 100 * (len(SPLITS) - 2) - 10])
    with pytest.raises(StageError, match="none belongs to the split test"):
        run()


def test_a_missing_column_names_file_and_columns(project, log) -> None:
    pl.DataFrame(log).rename({"taken": "clicked"}).write_parquet("log.parquet")
    with pytest.raises(StageError, match=r"log\.parquet: no column 'taken' \(found: user, time, candidates, clicked\)"):
        run(given_params("log.parquet"))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"format": "mind"}, "given.order: shuffled"),
        ({"order": "shuffled", "propensity": "power"}, "places are not known"),
        ({"propensity": "logged"}, "set both or neither"),
        ({"place": "rank"}, "retrieve.given.slate"),
        ({"taken": "", "grades": "worth"}, "marks of the candidates"),
    ],
)
def test_values_that_cannot_be_meant_together(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        GivenParams(**values)


@pytest.mark.parametrize(
    "values", [{"cross_fit": "folds"}, {"labels": "permuted"}, {"inject_targets": True}, {"reads": "data/ingest/items.parquet"}]
)
def test_given_slates_are_not_changed(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="given"):
        RetrieveParams(**(given_params().model_dump() | values))
