import json

import pytest

from stages.serve.catalogue import IdCatalogue
from stages.serve.parse import BadRequest, rank_request
from tests.support.retrieve_project import own_items


@pytest.fixture(scope="module")
def catalogue(finished_run):
    return IdCatalogue.read()


def test_all_forms_of_a_query_say_the_same(catalogue):
    own = own_items(3)
    names = [str(item) for item in own]
    forms = ["user:u3", " user: u3 ", '{"user_id": "u3"}', {"user_id": "u3"}, names, json.dumps(names), {"history": own}]
    assert [rank_request(catalogue, form, ["1"]).history for form in forms] == [own] * len(forms)


def test_items_are_ids_titles_or_objects_and_unknown_ones_keep_their_place(catalogue):
    items = ["7", 8, "Title 9", {"id": "10"}, {"docid": 11}, {"text": "Title 12"}, "nobody's", {"id": None, "text": "13"}]
    assert rank_request(catalogue, "user:u3", items).items == [7, 8, 9, 10, 11, 12, None, 13]


def test_a_document_with_metadata_is_found_by_its_line_id(catalogue):
    named = [
        "id: 7\nyear: 1995\n\nTitle 6",
        "title: Title 6\nid: '8'\n",
        'id: "9"',
        "id: gone\nid: 4",
        "Title 5\nid:",
        "id: '",
        "id: 'Title 6'",
    ]
    assert rank_request(catalogue, "user:u3", named).items == [7, 8, 9, None, None, None, 6]


def test_unknown_users_and_items_of_a_history_are_no_error(catalogue):
    stranger = rank_request(catalogue, "user:nobody", ["1"])
    assert (stranger.history, stranger.known_user) == ([], False)
    assert rank_request(catalogue, ["4", "gone", "5"], ["1"]).history == [4, 5]


@pytest.mark.parametrize(
    "query", ["films I like", "", "12", None, 3, {"likes": 1}, {"user_id": None}, {"user_id": [1]}, [None], "[" * 9999]
)
def test_a_query_that_says_nothing_is_refused_with_the_forms_that_do(catalogue, query):
    with pytest.raises(BadRequest, match=r"send|expected"):
        rank_request(catalogue, query, ["1"])


@pytest.mark.parametrize("items", [[], [None], [True], [1.5], [{}], [{"name": "x"}], [["1"]], ["\ud800"]])
def test_items_that_name_nothing_are_refused(catalogue, items):
    with pytest.raises(BadRequest, match=r"send|surrogate"):
        rank_request(catalogue, "user:u3", items)


@pytest.mark.parametrize("scores", [[1.0], [1.0, float("nan")], [1.0, float("inf")], [1.0, "2"], "12", [1.0, 1e31]])
def test_scores_are_one_number_an_item(catalogue, scores):
    with pytest.raises(BadRequest, match="scores"):
        rank_request(catalogue, "user:u3", ["1", "2"], scores)
