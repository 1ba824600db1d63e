"""Text in other encodings and behind byte-order marks, over formats, sources and places: converted, counted, or refused; never mojibake."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.readers import chunks
from stages.shared.core.errors import StageError
from stages.shared.sources import encoding as encodings
from tests.support.raw_reading import read
from tests.support.raw_tables import FEW, TEXT_FORMATS, folder_of, play, put, song

MARK = "\ufeff"
MARKED = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
WORDS = st.text(st.sampled_from("aé ñßÆ’–€"), min_size=1, max_size=6).filter(str.strip)


@FEW
@given(words=st.lists(WORDS, min_size=1, max_size=5), data=st.data(), size=st.integers(1, 60))
def test_each_line_of_movielens_is_read_in_its_own_encoding(words: list[str], data: st.DataObject, size: int) -> None:
    """UTF-8, Latin-1 or what Windows makes of it, mixed in one file as conversions leave them."""
    lines = []
    for number, word in enumerate(words, start=1):
        encodings = ["utf-8", "cp1252", *(["latin-1"] if word.isascii() or not set(word) & set("’–€") else [])]
        encoded = f"{number}::x{word}y::Drama\n".encode(data.draw(st.sampled_from(encodings)))
        lines.append(encoded)
    with folder_of(ratings__dat="1::1::5::100\n", movies__dat=b"".join(lines)) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "BLOCK", size)
        got = read(folder, "movielens-1m")
    assert [item[1] for item in got.items] == [f"x{word}y" for word in words]


@FEW
@given(ending=st.sampled_from(TEXT_FORMATS), marks=st.integers(0, 3), within=st.integers(1, 2), size=st.integers(1, 60))
def test_byte_order_marks_at_the_start_and_within(ending: str, marks: int, within: int, size: int) -> None:
    with folder_of() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "BLOCK", size)
        path = folder / put(folder, "plays", [play("a"), play("b")], ending)
        put(folder, "songs", [song("a"), song("b")], "csv")
        content = path.read_bytes()
        lines = (gzip.decompress(content) if ending.endswith(".gz") else content).decode().rstrip("\n").split("\n")
        text = (MARK * marks + "\n".join([*lines[:-1], MARK * within + lines[-1]])).encode()
        path.write_bytes(gzip.compress(text) if ending.endswith(".gz") else text)
        got = read(folder, "table", table={"interactions": path.name, "items": "songs.csv"})
    assert [row[:2] for row in got.interactions] == [("u", "a"), ("u", "b")] and not got.rejected


@FEW
@given(ending=st.sampled_from(TEXT_FORMATS[:3]), encoding=st.sampled_from([*MARKED, "latin-1"]))
def test_other_encodings_are_refused_or_counted(ending: str, encoding: str) -> None:
    with folder_of() as folder:
        put(folder, "plays", [play("a")], "csv")
        path = folder / put(folder, "songs", [song("a", title="Pâté"), song("b")], ending)
        text = path.read_bytes().decode()
        path.write_bytes(text.replace("P\\u00e2t\\u00e9", "Pâté").encode(encoding))
        table = {"interactions": "plays.csv", "items": path.name}
        if encoding == "latin-1":
            got = read(folder, "table", table=table)
            assert [row[2] for row in got.rejected] == ["not UTF-8"] and [row[1] for row in got.items] == ["Tb"]
        else:
            with pytest.raises(StageError, match=rf"songs\.{ending}, row 1: not text in UTF-8"):
                read(folder, "table", table=table)


TITLES = st.text(st.sampled_from("aé ñß’–€漢字𝄞🎵"), min_size=1, max_size=20).filter(str.strip)


@FEW
@given(
    ending=st.sampled_from(TEXT_FORMATS),
    item_ending=st.sampled_from(TEXT_FORMATS),
    encoding=st.sampled_from(MARKED),
    titles=st.lists(TITLES, min_size=1, max_size=4),
    marks=st.integers(1, 2),
    size=st.integers(1, 60),
)
def test_an_encoding_with_its_mark_is_converted(
    ending: str, item_ending: str, encoding: str, titles: list[str], marks: int, size: int
) -> None:
    """Log and items, plain and gzipped, cut into parts anywhere: the same rows as in UTF-8, and the encoding told of each file."""
    plays, songs = [play(f"i{n}") for n in range(len(titles))], [song(f"i{n}", title=title) for n, title in enumerate(titles)]
    with folder_of() as folder, pytest.MonkeyPatch.context() as patch:
        files = put(folder, "plays", plays, ending), put(folder, "songs", songs, item_ending)
        table = {"interactions": files[0], "items": files[1]}
        expected = read(folder, "table", table=table)
        for name in files:
            recode(folder / name, encoding, marks)
        patch.setattr(chunks, "BLOCK", size)
        patch.setattr(encodings, "_READ", size)
        got = read(folder, "table", table=table)
    assert got.tables == expected.tables and [row[1] for row in got.items] == titles
    assert [file.encoding for file in got.log.files] == [encoding] * 2 and {file.encoding for file in expected.log.files} == {"utf-8"}


def recode(path: Path, encoding: str, marks: int = 1) -> None:
    content = path.read_bytes()
    packed = content[:2] == b"\x1f\x8b"
    text = (MARK * marks + (gzip.decompress(content) if packed else content).decode()).encode(encoding)
    path.write_bytes(gzip.compress(text) if packed else text)


RECODED: dict[str, tuple[str, dict[str, str]]] = {
    "movielens-100k": ("movielens-100k", {"u.data": "1\t2\t3\t4\n", "u.item": "2|Café|01-Jan-1995||" + "|0" * 18 + "|1\n"}),
    "movielens-1m": ("movielens-1m", {"ratings.dat": "1::2::3::4\n", "movies.dat": "2::Café::Drama\n"}),
    "movielens-25m": (
        "movielens-25m",
        {"ratings.csv": "userId,movieId,rating,timestamp\n1,2,3,4\n", "movies.csv": "movieId,title,genres\n2,Café,Drama\n"},
    ),
    "recbole": (
        "folder",
        {
            "x.inter": "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t4\n",
            "x.item": "item_id:token\ttitle:token_seq\n2\tCafé\n",
        },
    ),
    "reviews": (
        "folder",
        {
            "reviews_C_5.json": '{"reviewerID": "u", "asin": "i", "unixReviewTime": 4, "overall": 5.0}\n',
            "meta_C.json": '{"asin": "i", "title": "Café"}\n',
        },
    ),
    "plain pair": (
        "folder",
        {"sequences.txt": "1 2 3\n", "items.jsonl": '{"item_id": 2, "title": "Café"}\n{"item_id": 3, "title": "Ü"}\n'},
    ),
    "mind": (
        "folder",
        {
            "behaviors.tsv": "1\tU1\t11/15/2019 10:22:32 AM\tN1\tN2-1 N1-0\n",
            "news.tsv": "N1\tnews\tx\tCafé\t\t\t\t\nN2\tnews\tx\tÜ\t\t\t\t\n",
        },
    ),
}


@pytest.mark.parametrize("layout", RECODED)
@pytest.mark.parametrize("encoding", MARKED[:2])
def test_every_source_is_read_in_a_marked_encoding(tmp_path: Path, layout: str, encoding: str) -> None:
    source, files = RECODED[layout]
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    expected = read(tmp_path, source)
    for name in files:
        recode(tmp_path / name, encoding)
    got = read(tmp_path, source)
    assert got.tables == expected.tables and expected.interactions and not expected.rejected and any("Café" in row for row in got.items)
    assert {file.encoding for file in got.log.files} == {encoding}


@FEW
@given(
    ending=st.sampled_from(TEXT_FORMATS),
    encoding=st.sampled_from(MARKED),
    fault=st.sampled_from(["cut", "UTF-8 behind", "the other order behind", "half of a pair"]),
    rows=st.integers(1, 5),
)
def test_a_marked_encoding_that_does_not_hold_is_no_mojibake(ending: str, encoding: str, fault: str, rows: int) -> None:
    """Refused with the row, or the row alone is bad: no text is ever read that nobody wrote."""
    with folder_of() as folder:
        put(folder, "plays", [play("i0")], "csv")
        songs = [song(f"i{n}", title=f"Pâté {n}") for n in range(rows)]
        path = folder / put(folder, "songs", songs, ending)
        content = path.read_bytes()
        plain = (gzip.decompress(content) if ending.endswith(".gz") else content).decode().rstrip("\n")
        text = (MARK + plain).encode(encoding)
        other = encoding[:-2] + ("be" if encoding.endswith("le") else "le")
        text = {
            "cut": text[:-1],
            "UTF-8 behind": text + f"\n{plain}\n{plain} of a longer part".encode(),
            "the other order behind": text + (MARK + plain).encode(other),
            "half of a pair": text[:-4] + "\ud800".encode(encoding, "surrogatepass") + text[-4:],
        }[fault]
        path.write_bytes(gzip.compress(text) if ending.endswith(".gz") else text)
        table = {"interactions": "plays.csv", "items": path.name}
        if fault == "half of a pair":
            got = read(folder, "table", table=table)
            assert len(got.rejected) == 1 and [row[0] for row in got.items] == [f"i{n}" for n in range(rows - 1)]
            return
        with pytest.raises(StageError, match=rf"songs\.{ending}, row \d+: not text in UTF-\d\d, (little|big)-endian"):
            read(folder, "table", table=table)


@FEW
@given(ending=st.sampled_from(TEXT_FORMATS), encoding=st.sampled_from(MARKED), marked=st.booleans(), rows=st.integers(5, 8))
def test_a_marked_part_behind_plain_text_is_bad_row_for_row(ending: str, encoding: str, marked: bool, rows: int) -> None:
    with folder_of() as folder:
        put(folder, "songs", [song(f"i{n}") for n in range(2 * rows)], "csv")
        path = folder / put(folder, "plays", [play(f"i{n}") for n in range(rows)], ending)
        content = path.read_bytes()
        plain = (gzip.decompress(content) if ending.endswith(".gz") else content).decode().rstrip("\n") + "\n"
        text = plain.encode() + (MARK * marked + plain).encode(encoding)
        path.write_bytes(gzip.compress(text) if ending.endswith(".gz") else text)
        got = read(folder, "table", table={"interactions": path.name, "items": "songs.csv"})
    assert [row[1] for row in got.interactions] == [f"i{n}" for n in range(rows)] and len(got.rejected) >= rows
