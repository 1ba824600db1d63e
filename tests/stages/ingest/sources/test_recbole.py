import pytest

from stages.shared.core.errors import StageError
from tests.support.raw_reading import read, write

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"


def test_recbole_form(tmp_path):
    items = ITEM + "543\tMisérables, Les\t1995\tDrama  Musical\n9\tNo\u2028Line\t\t\n"
    got = read(write(tmp_path / "raw", x__inter=INTER + "196\t242\t3\t881250949\r\n\n22\t377\t1\t878887116.0\n", x__item=items))
    assert got.interactions == [("196", "242", 881250949, 3.0, 2), ("22", "377", 878887116, 1.0, 4)]
    assert got.items == [("543", "Misérables, Les", "1995", "", ["Drama", "Musical"], 2), ("9", "No\u2028Line", "", "", [], 3)]
    assert [file.name for file in got.log.files] == ["x.inter", "x.item"]


def test_columns_are_found_by_name(tmp_path):
    inter = "\ufefftimestamp:float\titem_id:token\tuser_id:token\n7.9\tb\t a \n"
    item = "brand:token\ttitle:text\titem_id:token\nAcme\tLip Balm\tB00\n"
    got = read(write(tmp_path / "raw", x__inter=inter, x__item=item))
    assert got.interactions == [("a", "b", 7, None, 2)]
    assert got.items == [("B00", "Lip Balm", "", "Acme", [], 2)]


def test_a_quote_is_a_character_like_any_other(tmp_path):
    got = read(write(tmp_path / "raw", x__inter=INTER + "1\t2\t3\t4\n", x__item=ITEM + '2\t"Weird Al\t1989\tComedy\n'))
    assert got.items == [("2", '"Weird Al', "1989", "", ["Comedy"], 2)]


def test_files_of_ones_own_may_lack_times_titles_and_items(tmp_path, capfd):
    inter = "item_id:token\tuser_id:token\tclicks:float\nb\tann\t1\na\tbob\t2\na\tann\t1\n"
    users = "user_id:token\tage:float\nann\t7\n"
    got = read(write(tmp_path / "raw", x__inter=inter, x__user=users))
    assert got.interactions == [("ann", "b", 0, None, 2), ("bob", "a", 0, None, 3), ("ann", "a", 1, None, 4)]
    assert [item[:2] for item in got.items] == [("b", "Item b"), ("a", "Item a")] and got.rejected == []
    assert got.log.time == "order" and [file.name for file in got.log.files] == ["x.inter", "items of x.inter"]
    said = capfd.readouterr().out
    assert "the order of the file counts" in said and "no .item file" in said
    got = read(write(tmp_path / "raw", x__item="item_id:token\tclass:token_seq\na\tX Y\nb\t\n"))
    assert [item[:5] for item in got.items] == [("a", "Item a", "", "", ["X", "Y"]), ("b", "Item b", "", "", [])]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"x__item": ITEM}, ["*.inter", "found none"]),
        ({"a__inter": INTER, "b__inter": INTER, "x__item": ITEM}, ["exactly one *.inter", "a.inter, b.inter"]),
        ({"x__inter": b"", "x__item": ITEM}, ["x.inter, row 1", "'user_id' is missing", "user_id:token"]),
        ({"x__inter": "uid:token\titem_id:token\n1\t2\n", "x__item": ITEM}, ["'user_id' is missing", "(found: uid:token,", "gr2 init"]),
        ({"x__inter": INTER, "a__item": ITEM, "x__item": ITEM}, ["exactly one *.item", "a.item, x.item"]),
        ({"x__inter": INTER, "x__item": ITEM}, ["x.inter: no rows"]),
        ({"x__inter": INTER + "1\t2\t3\t4\n", "x__item": "iid:token\n1\n"}, ["x.item, row 1", "'item_id' is missing"]),
    ],
)
def test_bad_files_are_named(tmp_path, files, said):
    with pytest.raises(StageError) as error:
        read(write(tmp_path / "raw", **files))
    for words in said:
        assert words in str(error.value)
