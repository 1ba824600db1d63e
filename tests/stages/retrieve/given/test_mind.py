"""MIND's impressions as slates: ingest and retrieve on one made-up archive."""

from contextlib import chdir

import pytest

from stages.evaluate.leak_checks import check_grades, check_histories, check_targets, check_test_is_later
from stages.ingest.ingest import ingest
from stages.ingest.params import IngestParams
from stages.retrieve.given.mind import read_mind
from stages.retrieve.params import RetrieveParams
from stages.retrieve.retrieve import retrieve
from stages.shared.core.outputs import DATA, read_json, stage_outputs
from stages.shared.core.schemas import INTERACTIONS, ITEMS, USERS, read_slate_table, read_table
from tests.support.mind_files import HISTORY, READERS, SHOWINGS, behavior_rows, write_mind
from tests.support.retrieve_project import write_prompt_params

INGEST = IngestParams(source="mind", folder="mind", min_interactions=5, base_share=0.55, min_base=5, valid_positions=1, test_positions=2)
RETRIEVE = RetrieveParams(
    model="given", reads="mind/behaviors.tsv", candidates=10, feature_bins=4, given={"format": "mind", "order": "shuffled"}
)


@pytest.mark.parametrize("several", [False, True])
def test_impressions_become_slates(tmp_path, several: bool) -> None:
    with chdir(tmp_path):
        write_mind(tmp_path / "mind", several=several)
        write_prompt_params(tmp_path)
        with stage_outputs("ingest") as outputs:
            ingest(INGEST, outputs)
        with stage_outputs("retrieve") as outputs:
            retrieve(RETRIEVE, outputs)
        slates, log = read_slate_table(DATA / "retrieve/slates.parquet"), read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
        for check in (check_test_is_later, check_histories, check_targets, check_grades):
            check(slates, log)
        users = read_table(DATA / "ingest/users.parquet", USERS)["source_id"].to_list()
        items = read_table(DATA / "ingest/items.parquet", ITEMS)["source_id"].to_list()
        told = {tuple(row.split("\t")[index] for index in (1, 4)) for row in behavior_rows(several=several)}
        for user, candidates, grades in slates.select("user", "candidates", "grades").iter_rows():
            marks = " ".join(f"{items[item]}-{grade}" for item, grade in zip(candidates, grades, strict=True))
            assert (users[user], marks) in told
        assert all(len(history) >= HISTORY for history in slates["history"]) and set(slates["scores"].explode()) == {0.0}
        given = read_json(DATA / "retrieve/metrics.json")["given"]
        assert given["slates"] + sum(given["left_out"].values()) == READERS * SHOWINGS and given["refused"] == {}
        assert (given["several_taken"] > 0) == several


def test_the_test_set_of_mind_says_that_it_has_no_clicks(tmp_path) -> None:
    (tmp_path / "behaviors.tsv").write_text("1\tU1\t11/15/2019 10:22:32 AM\tN1\tN2 N3\n", encoding="utf-8")
    [(name, row, reason)] = read_mind(tmp_path)
    assert (name, row) == (f"{tmp_path.name}/behaviors.tsv", 1) and "does not say what was clicked" in str(reason)
