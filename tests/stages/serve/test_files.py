"""Files of requests as people have them: encodings, gzip, types of Parquet, and what is none; a file is looked at whole first."""

import gzip
import json

import polars as pl
import pytest

from stages.serve import rerank
from stages.serve.export import export_prompts
from stages.serve.files import convert
from stages.serve.rerank import rerank_file
from stages.serve.reranker import MODEL
from stages.shared.core.errors import StageError

ROW = {"user_id": "u1", "candidates": ["3", "1", "4", "2", "5"]}
LINE = json.dumps(ROW) + "\n"
RUN = "".join(f"u1 Q0 {docid} {rank} {9 - rank} bm25\n" for rank, docid in enumerate(ROW["candidates"], 1))


pytestmark = pytest.mark.usefixtures("opened_once")


def ranked(path, ids="source"):
    """The order of the first row; nothing is left beside the answers."""
    output, before = path.with_name("out.jsonl"), {file.name for file in path.parent.iterdir()}
    rerank_file(path, output, MODEL, "reasoning", ids, 4)
    assert {file.name for file in path.parent.iterdir()} == before | {output.name}
    return json.loads(output.read_text().splitlines()[0])["order"]


def refused(path, words, ids="source"):
    before = {file.name for file in path.parent.iterdir()}
    with pytest.raises(StageError, match=words):
        rerank_file(path, path.with_name("out.jsonl"), MODEL, "reasoning", ids, 1)
    assert {file.name for file in path.parent.iterdir()} == before, "nothing is half-written"


@pytest.fixture(scope="module")
def order(reranker, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "in.jsonl"
    path.write_text(LINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rerank, "open_reranker", lambda *_: _opened(reranker))
        return ranked(path)


class _opened:
    def __init__(self, reranker):
        self.reranker = reranker

    def __enter__(self):
        return self.reranker

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mark.jsonl", b"\xef\xbb\xbf" + LINE.encode()),
        ("utf16.jsonl", LINE.encode("utf-16")),
        ("windows.jsonl", (LINE.strip() + "\r\n").encode()),
        ("packed.jsonl.gz", gzip.compress(LINE.encode())),
        ("packed.jsonl", gzip.compress(LINE.encode("utf-16"))),
        ("mark.trec", b"\xef\xbb\xbf" + RUN.encode()),
        ("utf16.trec.gz", gzip.compress(RUN.encode("utf-16"))),
    ],
)
def test_a_text_file_is_read_whatever_its_encoding(tmp_path, order, name, content):
    (tmp_path / name).write_bytes(content)
    assert ranked(tmp_path / name) == order


def test_topics_have_marks_too(tmp_path, order):
    (tmp_path / "in.trec").write_text(RUN.replace("u1", "q"))
    (tmp_path / "topics.tsv").write_bytes(b"\xef\xbb\xbfq\tuser:u1\n")
    rerank_file(tmp_path / "in.trec", tmp_path / "out.jsonl", MODEL, "reasoning", "source", 4, tmp_path / "topics.tsv")
    assert json.loads((tmp_path / "out.jsonl").read_text())["order"] == order


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt8, pl.Int32, pl.UInt64, pl.Categorical, pl.Array(pl.Int16, 5)], ids=str)
def test_lists_of_parquet_hold_ids_of_any_type(tmp_path, order, dtype):
    inner = pl.String if dtype == pl.Categorical else pl.Int64
    table = pl.DataFrame({"user_id": ["u1"], "candidates": [ROW["candidates"]]}).with_columns(pl.col("candidates").cast(pl.List(inner)))
    table.with_columns(pl.col("candidates").cast(dtype if dtype == pl.Array(pl.Int16, 5) else pl.List(dtype))).write_parquet(
        tmp_path / "in.parquet"
    )
    assert ranked(tmp_path / "in.parquet") == order


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cut.jsonl.gz", gzip.compress(LINE.encode() * 500)[:-9], r"cut.jsonl.gz: cannot be read after line .*whole file"),
        ("latin.jsonl", '{"user_id": "é"}'.encode("latin-1"), "latin.jsonl: cannot be read after line 0 .*UTF-8"),
        ("bare.jsonl", LINE.encode("utf-16-le"), "bare.jsonl, row 1: not text in UTF-8 .*iconv"),
        ("deep.jsonl", LINE.encode() + b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 2: no JSON that can be read"),
        ("half.jsonl", b'{"id": "\\ud800", "user_id": "u1", "candidates": ["1"]}\n', "line 1: no text: it holds half"),
        ("list.jsonl", json.dumps([ROW]).encode(), "line 1: no JSON object"),
        ("blank.jsonl", b"\n \n", "no rows"),
        ("late.jsonl", LINE.encode() * 3 + b'{"user_id": "u1"}\n', "line 4: `candidates` is no list"),
        ("history.jsonl", b'{"history": [1.5], "candidates": ["1"]}\n', "line 1: history item 0 is no id"),
        ("in.csv", b"a,b\n", "end its name with"),
        ("in.parquet.gz", b"", "end its name with"),
        ("cut.trec.gz", gzip.compress(RUN.encode() * 500)[:-9], "cut.trec.gz: cannot be read after line"),
    ],
)
def test_a_text_file_that_is_none_is_named_before_anything_is_asked(tmp_path, reranker, monkeypatch, name, content, words):
    monkeypatch.setattr(type(reranker), "rank", lambda *_: pytest.fail("it was asked"))
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, words)


def test_a_parquet_file_that_is_none_is_named(tmp_path):
    pl.DataFrame({"user_id": ["u1"] * 2, "candidates": [["1"], None]}).write_parquet(tmp_path / "hole.parquet")
    pl.DataFrame({"user_id": ["u1"], "candidates": [b"12"]}).write_parquet(tmp_path / "bytes.parquet")
    whole = (tmp_path / "hole.parquet").read_bytes()
    (tmp_path / "damaged.parquet").write_bytes(whole[:4] + b"\xff" * 40 + whole[44:])
    refused(tmp_path / "hole.parquet", "row 1: `candidates` is no list")
    refused(tmp_path / "bytes.parquet", "row 0: `candidates` is no list")
    refused(tmp_path / "damaged.parquet", "damaged.parquet: not a readable Parquet file")


def test_what_is_read_is_never_written_over_and_a_model_that_is_not_there_is_said(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text(LINE)
    with pytest.raises(StageError, match="it is what is read"):
        rerank_file(path, path, MODEL, "reasoning", "source", 4)
    with pytest.raises(StageError, match="it is what is read"):
        export_prompts(path, tmp_path / "." / "in.jsonl", MODEL, "source")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(StageError, match="a folder; name a file"):
        rerank_file(path, tmp_path / "folder.jsonl", MODEL, "reasoning", "source", 4)
    with pytest.raises(StageError, match="none: no such folder"):
        rerank_file(path, tmp_path / "out.jsonl", tmp_path / "none", "reasoning", "source", 4)
    assert path.read_text() == LINE


def test_a_kill_while_the_output_is_written_costs_no_answer(tmp_path, reranker, monkeypatch):
    path, output = tmp_path / "in.jsonl", tmp_path / "out.parquet"
    path.write_text(LINE * 4)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rerank, "convert", killed)
    with pytest.raises(KeyboardInterrupt):
        rerank_file(path, output, MODEL, "reasoning", "source", 2)
    monkeypatch.setattr(rerank, "convert", convert)
    monkeypatch.setattr(type(reranker), "rank", lambda *_: pytest.fail("it is asked again"))
    assert rerank_file(path, output, MODEL, "reasoning", "source", 2) == {"": 4}
    assert {file.name for file in tmp_path.iterdir()} == {"in.jsonl", "out.parquet"} and pl.read_parquet(output).height == 4
