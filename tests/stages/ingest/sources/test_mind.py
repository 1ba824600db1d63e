"""MIND in its official layout: the history comes before the user's first impression, clicks stand at the time of theirs."""

from datetime import UTC, datetime

from tests.support.mind_files import HISTORY, NEWS, READERS, SHOWINGS, behavior_rows, write_mind
from tests.support.raw_reading import read

FORM = "%m/%d/%Y %I:%M:%S %p"


def test_histories_then_clicks_by_time(tmp_path) -> None:
    found = read(write_mind(tmp_path), "mind")
    assert found.rejected == [] and len(found.interactions) == READERS * (HISTORY + SHOWINGS)
    sequences: dict[str, list[tuple[int, str]]] = {}
    for user, item, time, _, _ in found.interactions:
        sequences.setdefault(user, []).append((time, item))
    expected: dict[str, list[tuple[int, str]]] = {}
    rows = [row.split("\t") for row in behavior_rows()]
    for _, user, time, history, shown in sorted(rows, key=lambda row: datetime.strptime(row[2], FORM)):
        moment = int(datetime.strptime(time, FORM).replace(tzinfo=UTC).timestamp())
        own = expected.setdefault(user, [(moment - HISTORY + place, item) for place, item in enumerate(history.split())])
        own += [(moment, mark.removesuffix("-1")) for mark in shown.split() if mark.endswith("-1")]
    assert {user: sorted(own) for user, own in sequences.items()} == {user: sorted(own) for user, own in expected.items()}


def test_news_are_items_with_both_categories(tmp_path) -> None:
    found = read(write_mind(tmp_path), "folder")  # recognised by the names
    assert len(found.items) == NEWS and found.items[1] == ("N1", "Headline 1", "", "", ["news", "newsus"], 2)
    assert found.items[3][4] == ["finance"]


def test_bad_lines_are_named(tmp_path) -> None:
    write_mind(tmp_path)
    rows = ["1\tU0\t2019-11-15 10:22:32\tN1\tN2-1", "2\tU0\t11/15/2019 1:22:32 PM\tN1", "3\tU0\t11/15/2019 1:22:32 PM\t\tN2-1 N3-0"]
    (tmp_path / "behaviors.tsv").write_text("\n".join(rows), encoding="utf-8")
    found = read(tmp_path, "mind")
    assert [(row, why) for _, row, why, _ in found.rejected] == [
        (10_000, "time is not like %m/%d/%Y %I:%M:%S %p"),
        (20_000, "not 5 columns"),
    ]
    assert found.interactions == [("U0", "N2", 1573824152, None, 30_001)]
