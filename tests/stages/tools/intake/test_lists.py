"""gr2 init and gr2 validate on files of lists that were shown: three forms, with a log beside them or alone."""

import json
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
import yaml

from stages.retrieve.given.files import read_tables
from stages.retrieve.given.impression import Impression
from stages.retrieve.params import RetrieveParams
from stages.tools import validate
from stages.tools.intake import init
from tasks.project.profiles import render
from tests.support.logged_example import plays_and_slates, songs
from tests.support.mind_files import write_mind
from tests.support.project_clone import ROOT

SLATES = plays_and_slates()[1]
PLAYS = pl.DataFrame(plays_and_slates()[0], schema=["listener", "song", "played_at"], orient="row")
SONGS = pl.DataFrame(songs(), schema=["song", "name", "artist", "genres"], orient="row")
Given = list[tuple[str, int, tuple[str, ...], tuple[int, ...]]]


def made_up(form: str, separator: str, nested: bool) -> tuple[pl.DataFrame, Given]:
    """The lists of infra/examples/logged-slates in a form, and what they say: user, items, grades (1 each but in form lists)."""
    rows: list[dict[str, Any]] = []
    said: Given = []
    for number, (user, time, shown, taken, worth) in enumerate(SLATES):
        ids, some = str(shown).split(), str(taken).split()
        grades = dict(zip(some, map(int, str(worth).split()), strict=True)) if form == "lists" else dict.fromkeys(some, 1)
        said.append((str(user), number, tuple(ids), tuple(grades.get(item, 0) for item in ids)))
        head = {"kunde": user, "shown_at": time}
        if form == "rows":
            rows += [{"req": f"q{number}", **head, "artikel": item, "rang": k, "klick": int(item in some)} for k, item in enumerate(ids, 1)]
        elif form == "marks":
            marked = [f"{item}-{int(item in some)}" for item in ids]
            rows.append({**head, "angebot": marked if nested else separator.join(marked)})
        else:
            worths = list(map(int, str(worth).split()))
            lists = {"angebot": ids, "clicked": some, "worth": worths}
            rows.append({**head, **(lists if nested else {key: separator.join(map(str, value)) for key, value in lists.items()})})
    return pl.DataFrame(rows), said


def store(table: pl.DataFrame, path: Path) -> None:
    match path.suffix:
        case ".parquet":
            table.write_parquet(path)
        case ".jsonl":
            table.write_ndjson(path)
        case _:
            table.write_csv(path, separator="\t" if path.suffix == ".tsv" else ";")


def project(folder: Path) -> Path:
    (folder / "infra/profiles").mkdir(parents=True)
    shutil.copy(ROOT / "infra/profiles/default.yaml", folder / "infra/profiles")
    return folder


def understood(root: Path, name: str) -> Given:
    """The lists as the profile reads them."""
    params = RetrieveParams.model_validate(yaml.safe_load(render(root, name))["retrieve"])
    assert params.model == "given"
    lists = [one for _, _, one in read_tables(Path(params.reads), params.given)]
    assert all(isinstance(one, Impression) for one in lists)
    return [(one.user, number, one.candidates, one.grades) for number, one in enumerate(lists) if isinstance(one, Impression)]


@pytest.mark.parametrize(
    ("form", "ending", "separator", "with_log", "encoding", "order"),
    [
        ("lists", "csv", " ", True, "utf-8", "shown"),
        ("lists", "csv", "|", False, "utf-16-le", "shuffled"),
        ("lists", "jsonl", " ", False, "utf-8", "shown"),
        ("lists", "parquet", " ", True, "utf-8", "shuffled"),
        ("marks", "tsv", ",", True, "utf-16-be", "shown"),
        ("marks", "parquet", " ", True, "utf-8", "shuffled"),
        ("rows", "csv", " ", False, "utf-8", "shown"),
        ("rows", "jsonl", " ", True, "utf-16-le", "shown"),
    ],
)
def test_lists_are_read_as_what_they_are(form: str, ending: str, separator: str, with_log: bool, encoding: str, order: str) -> None:
    table, said = made_up(form, separator, nested=ending in ("jsonl", "parquet"))
    with TemporaryDirectory() as there, pytest.MonkeyPatch.context() as patch:
        root, folder = project(Path(there) / "project"), Path(there) / "data"
        folder.mkdir()
        store(table, folder / f"angebote.{ending}")
        if ending != "parquet" and encoding != "utf-8":
            path = folder / f"angebote.{ending}"
            path.write_bytes(("\ufeff" + path.read_text(encoding="utf-8")).encode(encoding))
        if with_log:
            PLAYS.write_csv(folder / "plays.csv")
            SONGS.write_csv(folder / "songs.csv")
        patch.chdir(root)
        flags = ["--order", order] if form != "rows" else []
        assert init.main([str(folder), "--name", "x", *flags]) == 0
        assert understood(root, "x") == said
        text = render(root, "x")
        document = yaml.safe_load(text)
        assert document["retrieve"]["given"]["order"] == (order if flags else "shown")
        assert document["retrieve"]["candidates"] == max(len(ids) for _, _, ids, _ in said) and document["rl"]["rank_reward"] == "ndcg"
        assert (document["ingest"]["base_share"] == 0.33) == with_log
        (root / "params.yaml").write_text(text)
        params = validate.Params(
            **{  # type: ignore[arg-type]
                name: validate.section_of(name, model, document, "") for name, model in validate.Params.__annotations__.items()
            }
        )
        metrics, checks = validate.validate(params)
        assert [check for check in checks if check.level == "fault"] == [] and metrics["users"] == 60 and metrics["items"] == 64
        placed = next(check for check in checks if check.name == "lists")
        count = int(placed.found.split(" of ")[0].replace(",", ""))
        assert placed.level == "ok" and count > len(said) / (2 if with_log else 4)
        if not with_log:  # every item that was taken is an interaction
            assert metrics["raw"]["rows"] == sum(len(ids) if form == "rows" else sum(map(bool, grades)) for _, _, ids, grades in said)


def run(folder: Path, *flags: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    code = init.main([str(folder), *flags, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out.strip() else said.err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project(tmp_path / "project"))
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def test_the_order_of_a_list_is_asked_for_and_the_first_lists_are_shown(folder, capsys):
    store(made_up("lists", " ", nested=False)[0], folder / "angebote.csv")
    code, said = run(folder, capsys=capsys)
    [question] = said["questions"]
    assert code == 2 and question["flags"] == ["--order shown", "--order shuffled"] and not Path("infra/profiles/raw.yaml").exists()
    code, said = run(folder, "--order", "shuffled", capsys=capsys)
    assert code == 0 and len(said["lists_rows"]) == 5
    assert said["lists_rows"][0] == {
        "user": "listener0", "time (UTC)": "2024-03-05 13:00:00", "shown": "s57 s24 s02 s17 and 3 more", "taken": "s57", "scores": "",
    }  # fmt: skip
    assert said["lists_sizes"]["lists"] == len(SLATES) and said["lists_sizes"]["several_taken"] > 100
    init.main([str(folder), "--order", "shuffled"])
    printed = capsys.readouterr().out
    assert re.search(r"  separator +\(a space\): it cuts", printed) and "769 lists of 6.2 items on average, 9 at most" in printed
    assert "# several ids a cell; those of 'clicked' are always among them" in Path("infra/profiles/raw.yaml").read_text()


UNCERTAIN = {
    "orders with what was sent back": ("order_id,user,time,product,amount,returned", "{0},u{1},{2},p{3},1,{4}"),
    "lines of an order": ("order_id,user,time,product,line,gift", "{0},u{1},{2},p{3},{5},{4}"),
}


@pytest.mark.parametrize("case", UNCERTAIN)
def test_what_may_be_lists_is_asked_for(folder, capsys, case):
    header, row = UNCERTAIN[case]
    lines = [
        row.format(order, order % 12, 1_600_000_000 + 3600 * order, (5 * order + 7 * place) % 40, int(place == order % 3), place + 1)
        for order in range(200)
        for place in range(3)
    ]
    (folder / "orders.csv").write_text("\n".join([header, *lines]) + "\n")
    code, said = run(folder, capsys=capsys)
    asked = [flag for question in said["questions"] for flag in question["flags"]]
    assert code == 2 and asked == ["--lists orders.csv", "--lists none"], said
    code, said = run(folder, "--lists", "none", capsys=capsys)
    assert code == 0 and "lists_rows" not in said and "retrieve:" not in Path(said["profile"]).read_text()
    code, said = run(folder, "--lists", "orders.csv", "--order", "shown", capsys=capsys)
    assert code == 0 and said["lists_sizes"]["lists"] == 200 and said["taken"]["rating"]["value"] == header.split(",")[-1]


def test_marks_alone_and_unknown_items_and_users_are_said(folder, capsys):
    store(made_up("marks", " ", nested=False)[0], folder / "angebote.csv")
    code, said = run(folder, "--order", "shown", capsys=capsys)
    assert code == 1 and "no file here says when a user took what" in said
    PLAYS.write_csv(folder / "plays.csv")
    SONGS.head(40).write_csv(folder / "songs.csv")
    code, said = run(folder, "--order", "shown", capsys=capsys)
    assert code == 2 and said["questions"][0]["flags"] == ["--missing-items id", "--missing-items drop"]
    code, said = run(folder, "--order", "shown", "--missing-items", "drop", capsys=capsys)
    assert code == 1 and "hold items that are not among those that ingest reads" in said
    SONGS.write_csv(folder / "songs.csv")
    strangers = made_up("marks", " ", nested=False)[0].with_columns(pl.format("x{}", "kunde").alias("kunde"))
    store(strangers, folder / "angebote.csv")
    code, said = run(folder, "--order", "shown", capsys=capsys)
    assert code == 2 and "--lists-user kunde" in said["questions"][0]["flags"]
    code, said = run(folder, "--order", "shown", "--lists-user", "kunde", capsys=capsys)
    assert code == 1 and "no user of the lists is in the log" in said


def test_flags_that_name_nothing(folder, capsys):
    store(made_up("lists", " ", nested=False)[0], folder / "angebote.csv")
    for flags, words in (
        (("--lists", "x.csv"), "no table of that name"),
        (("--lists-user", "x"), "no such column"),
        (("--lists", "angebote.csv", "--taken", "worth"), "holds several ids a cell"),
    ):
        code, said = run(folder, "--order", "shown", *flags, capsys=capsys)
        assert code == 1 and words in said, said


def test_flags_of_lists_where_there_are_none(folder, capsys):
    PLAYS.write_csv(folder / "plays.csv")
    code, said = run(folder, "--order", "shown", capsys=capsys)
    assert code == 1 and "--order: no file here holds lists" in said


def test_the_impressions_of_mind_are_known_by_their_names(folder, capsys):
    write_mind(folder, several=True)
    code, said = run(folder, capsys=capsys)
    document = yaml.safe_load(render(Path.cwd(), "raw"))
    assert code == 0 and said["lists_sizes"]["lists"] == 180 and 0.4 < document["ingest"]["base_share"] < 0.8
    assert (document["retrieve"]["given"]["format"], document["retrieve"]["given"]["order"]) == ("mind", "shuffled")
    assert document["retrieve"]["reads"].endswith("behaviors.tsv") and document["rl"]["rank_reward"] == "ndcg"
