"""gr2 init takes files for what they are, says why, and asks where two readings are possible."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.commands.intake.init import OPTIONS
from stages.ingest.params import IngestParams
from stages.ingest.sources.source import read_source
from stages.tools import validate
from stages.tools.intake import init
from stages.tools.intake.choices import FLAGS
from stages.tools.intake.words import fit
from tasks.project.profiles import render
from tests.support.raw_reading import write

ROOT = Path(__file__).resolve().parents[4]
USERS, EACH = 12, 24


def events():
    """user, item, seconds: every user takes 24 of 40 items, an hour apart."""
    return [
        (f"u{user}", f"i{(7 * user + place) % 40}", 1_600_000_000 + 3600 * (100 * user + place))
        for user in range(USERS)
        for place in range(EACH)
    ]


def lines(rows, separator=","):
    return "".join(f"{separator.join(map(str, row))}\n" for row in rows)


def iso_log(separator=",", names=("kunde", "artikelnr", "gekauft_am", "menge")):
    moments = pl.from_epoch(pl.Series([time for *_, time in events()]), time_unit="s").dt.strftime("%Y-%m-%dT%H:%M:%SZ").to_list()
    return lines(
        [names, *((user, item, moment, place % 3) for place, ((user, item, _), moment) in enumerate(zip(events(), moments, strict=True)))],
        separator,
    )


def run(*words, capsys):
    code = init.main([*map(str, words), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out.strip() else said.err


def ingested(root, name):
    """Of the rendered profile, as gr2 run would put it into params.yaml: user, item, time of the log, and the items."""
    params = IngestParams.model_validate(yaml.safe_load(render(root, name))["ingest"])
    with TemporaryDirectory() as scratch:
        raw = read_source(params, Path(scratch))
        return raw.log().select("user", "item", "timestamp").collect().rows(), pl.read_parquet(raw.items)


def test_the_newcomers_path(project, tmp_path, capsys):
    """Unfamiliar names, a semicolon, ISO times, no titles: init, validate with the profile that it wrote, ingest."""
    folder = write(tmp_path / "My shop", bestellungen__csv=iso_log(";"))
    code, said = run(folder, capsys=capsys)
    assert code == 0 and said["profile"] == "infra/profiles/my-shop.yaml"
    table = {key: choice["value"] for key, choice in said["taken"].items()}
    assert (table["user"], table["item"], table["timestamp"], table["time_format"], table["title"]) == (
        "kunde",
        "artikelnr",
        "gekauft_am",
        "iso",
        "",
    )
    assert said["unused"] == ["bestellungen.csv: menge (numbers, 0 to 2)"] and len(said["rows"]) == 5
    assert said["rows"][0] == {
        "user": "u0",
        "item": "i0",
        "time (UTC)": "2020-09-13 12:26:40",
        "rating": "",
        "title": "Item i0",
        "year": "",
        "brand": "",
        "categories": "",
    }
    log, items = ingested(project, "my-shop")
    assert log == events() and sorted(items["title"])[0] == "Item i0"
    text = render(project, "my-shop")
    assert yaml.safe_load(text)["tokenize"]["codebook_size"] == 4 and "40 items fill no more than 4 codes" in said["why"][-1]
    assert yaml.safe_load(text)["embed"]["collaborative"]["mode"] == "concat"
    (tmp_path / "params.yaml").write_text(text)
    assert validate.main([str(tmp_path / "params.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and found["data"]["users"] == USERS and found["data"]["items"] == 40


@settings(max_examples=12, deadline=None)
@given(
    ending=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
    unit=st.sampled_from([("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9), ("iso", 0), ("%d.%m.%Y %H:%M", 0), ("dates", 0)]),
    names=st.sampled_from([("user_id", "item_id", "timestamp"), ("customerId", "sku", "createdAt"), ("Reader", "Book Nr.", "Day")]),
    titled=st.booleans(),
)
def test_variants_are_read_as_what_they_are(ending, unit, names, titled):
    form, factor = unit
    log = pl.DataFrame(events(), schema=list(names), orient="row")
    moments = pl.from_epoch(log[names[2]], time_unit="s")
    if factor:
        log = log.with_columns(pl.col(names[2]) * factor)
    elif form == "dates" and ending == "parquet":
        log = log.with_columns(moments.alias(names[2]))
    else:
        log = log.with_columns(moments.dt.strftime("%Y-%m-%d %H:%M:%S" if form in ("iso", "dates") else form).alias(names[2]))
    items = pl.DataFrame({names[1]: [f"i{place}" for place in range(40)], "Name": [f"The {place}th thing" for place in range(40)]})
    with TemporaryDirectory() as there, pytest.MonkeyPatch.context() as patch:
        root, folder = Path(there) / "project", Path(there) / "data"
        (root / "infra/profiles").mkdir(parents=True)
        folder.mkdir()
        shutil.copy(ROOT / "infra/profiles/default.yaml", root / "infra/profiles")
        patch.chdir(root)
        for name, table in {"log": log, **({"things": items} if titled else {})}.items():
            path = folder / f"{name}.{ending}"
            match ending:
                case "parquet":
                    table.write_parquet(path)
                case "jsonl":
                    table.write_ndjson(path)
                case _:
                    table.write_csv(path, separator="," if ending == "csv" else "\t")
        assert init.main([str(folder), "--name", "x"]) == 0
        got, catalogue = ingested(root, "x")
    assert got == [(user, item, time - time % 60 if form.startswith("%") else time) for user, item, time in events()]
    assert set(catalogue["title"]) == {f"The {place}th thing" if titled else f"Item i{place}" for place in range(40)}


AMBIGUOUS = {
    "day or month": (
        ["user,item,when", *((u, i, "03/04/2024") for u, i, _ in events())],
        "--time-format %d/%m/%Y",
        "--time-format %m/%d/%Y",
    ),
    "who is who": (["a,b,t", *events()], "--item b", "--item a", "--user a", "--user b"),
    "two times": (["user,item,sent,seen", *((u, i, t, t + 5) for u, i, t in events())], "--timestamp sent", "--timestamp seen"),
    "no times": (["user,item", *((u, i) for u, i, _ in events())], "--timestamp none"),
    "unit": (["user,item,time", *((u, i, t - 1_600_000_000) for u, i, t in events())], "--time-unit s", "--time-unit ms"),
    "title": (
        ["user,item,time,title,headline", *((u, i, t, f"About {i}", f"The {i}") for u, i, t in events())],
        *("--title title", "--title headline"),
    ),
    "categories": (
        ["user,item,time,genre", *((u, i, t, f"A|{i[1]};C") for u, i, t in events())],
        *("--category-separator '|'", "--category-separator ';'"),
    ),
    "encoding": (["user,item,time,title", *((u, i, t, f"Öl {i}") for u, i, t in events())], "--encoding latin-1"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_two_readings_are_asked_for_and_nothing_is_written(project, tmp_path, capsys, case):
    (header, *rows), *flags = AMBIGUOUS[case]
    folder = write(tmp_path / "raw", log__csv=f"{header}\n{lines(rows)}".encode("latin-1"))
    code, said = run(folder, capsys=capsys)
    asked = [flag for question in said["questions"] for flag in question["flags"]]
    assert code == 2 and set(flags) <= set(asked), asked
    assert [path.name for path in (project / "infra/profiles").iterdir()] == ["default.yaml"]
    answers = {flag.split(" ", 1)[0]: flag.split(" ", 1)[1].strip("'") for flag in reversed(flags)}
    code, said = run(folder, *(word for answer in answers.items() for word in answer), capsys=capsys)
    assert code == 0, said
    log, _ = ingested(project, "raw")
    assert [row[:2] for row in log] == [row[:2] for row in events()]


def test_a_name_decides_between_two_times(project, tmp_path, capsys):
    folder = write(tmp_path / "raw", log__csv="user,item,edited,created_at\n" + lines((u, i, t + 5, t) for u, i, t in events()))
    code, said = run(folder, capsys=capsys)
    assert code == 0 and said["taken"]["timestamp"]["value"] == "created_at" and "by its name" in said["taken"]["timestamp"]["why"]


def test_the_file_of_items_is_found_by_its_ids_and_that_of_users_is_not_taken_for_it(project, tmp_path, capsys):
    log = "who,what,at,stars\n" + lines((u, i, t, 3) for u, i, t in events())
    items = "key,name,kinds,made\n" + lines((f"i{n}", f"Thing {n}", f"A;B{n % 3}", 1990 + n % 20) for n in range(40))
    users = "user_id,name\n" + lines((f"u{n}", f"Person {n}") for n in range(USERS))
    folder = write(tmp_path / "raw", events__csv=log, things__csv=items, people__csv=users, README="Read me.\n")
    code, said = run(folder, capsys=capsys)
    assert code == 0, said
    expected = {
        "interactions": "events.csv", "items": "things.csv", "user": "who", "item": "what", "item_id": "key", "title": "name",
        "categories": "kinds", "category_separator": ";", "rating": "stars",
    }  # fmt: skip
    assert expected.items() <= {key: choice["value"] for key, choice in said["taken"].items()}.items()
    assert said["rows"][0]["title"] == "Thing 0" and said["rows"][0]["categories"] == "A, B0"


UNREADABLE = {
    "no header": (lines(events()), "names no columns (it has u0, i0, 1600000000)"),
    "UTF-16": (("user,item,time\n" + lines(events())).encode("utf-16-le"), "iconv -f utf-16"),
    "array": ("[" + ",".join('{"user": 1}' for _ in range(3)) + "]", "JSON array"),
    "a column twice": ("user,user,time\n" + lines(events()), "'user' stands twice"),
    "empty": ("", "empty"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_said(project, tmp_path, capsys, case):
    content, words = UNREADABLE[case]
    code, said = run(write(tmp_path / "raw", log__csv=content), capsys=capsys)
    assert code == 1 and words in said and "log.csv" in said


@pytest.mark.parametrize("case", ["no header", "UTF-16"])
def test_the_command_that_is_told_mends_the_file(project, tmp_path, capsys, case):
    """Word for word, in the folder of the file."""
    folder = write(tmp_path / "raw", log__csv=UNREADABLE[case][0])
    _, said = run(folder, capsys=capsys)
    subprocess.run(re.search(r"(?:before it:|convert it, e.g.) (.+)", said)[1], shell=True, cwd=folder, check=True)
    flags = ("--user", "column1", "--item", "column2", "--timestamp", "column3") if case == "no header" else ()
    code, said = run(folder, *flags, capsys=capsys)
    assert code == 0 and said["log_rows"] == len(events())


def test_too_many_bad_rows_write_nothing(project, tmp_path, capsys):
    log = "user,item,time\n" + lines(events()) + ",i1,5\n" * 30
    code, said = run(write(tmp_path / "raw", log__csv=log), "--time-unit", "s", "--timestamp", "time", capsys=capsys)
    assert code == 1 and "30 x empty user id" in said and not (project / "infra/profiles/raw.yaml").exists()


def test_a_published_form_is_known_by_its_names(project, tmp_path, capsys):
    ratings = lines(([u[1:], i[1:], 4, t] for u, i, t in events()), "::")
    folder = write(tmp_path / "ml", ratings__dat=ratings, movies__dat=lines(((n, f"Film {n} (1999)", "Drama") for n in range(40)), "::"))
    code, said = run(folder, capsys=capsys)
    assert code == 0 and "MovieLens-1M" in said["taken"]["source"]["value"] and said["rows"][0]["title"] == "Film 0 (1999)"
    assert len(ingested(project, "ml")[0]) == USERS * EACH


def test_two_published_forms_in_one_folder_are_not_chosen_between(project, tmp_path, capsys):
    code, said = run(write(tmp_path / "two", ratings__dat="1::2::3::4\n", big_matrix__csv="x\n"), capsys=capsys)
    assert code == 1 and "several forms at once" in said and "MovieLens-1M" in said and "KuaiRec" in said


def test_files_of_recbole_with_other_names(project, tmp_path, capsys):
    inter = "uid:token\tiid:token\tstars:float\tts:float\n" + lines(((u, i, 3, f"{t}.5") for u, i, t in events()), "\t")
    items = "iid:token\tname:token_seq\tgenre:token_seq\n" + lines(((f"i{n}", f"Thing {n}", "A B") for n in range(40)), "\t")
    folder = write(tmp_path / "own", own__inter=inter, own__item=items)
    code, said = run(folder, "--item", "iid:token", capsys=capsys)
    assert code == 0, said
    assert (
        said["taken"]["user"]["value"] == "uid:token" and said["rows"][0]["title"] == "Thing 0" and said["rows"][0]["categories"] == "A, B"
    )
    assert ingested(project, "own")[0] == events()


def test_a_profile_written_by_hand_is_not_overwritten(project, tmp_path, capsys):
    folder = write(tmp_path / "default", log__csv=iso_log())
    code, said = run(folder, capsys=capsys)
    assert code == 1 and "infra/profiles/default.yaml" in said and "--name OTHER" in said
    for _ in range(2):  # its own it may renew
        assert run(folder, "--name", "mine", capsys=capsys)[0] == 0


def test_short_histories_get_a_split_that_fits_them(project, tmp_path, capsys):
    log = "user,item,time\n" + lines(row for place, row in enumerate(events()) if place % EACH < 8)
    code, said = run(write(tmp_path / "raw", log__csv=log), capsys=capsys)
    section = yaml.safe_load((project / said["profile"]).read_text())["ingest"]
    assert code == 0 and (section["split"], section["min_interactions"]) == ("leave_one_out", 5) and "12 have 5" in said["why"][0]


def test_flags_that_name_nothing_are_errors(project, tmp_path, capsys):
    folder = write(tmp_path / "raw", log__csv=iso_log())
    for flag, value, words in (
        ("--user", "x", "kunde, artikelnr"),
        ("--user", "none", "no such column"),
        ("--items", "x.csv", "no table of that name"),
        ("--name", "a b", "no name of a profile"),
    ):
        code, said = run(folder, flag, value, capsys=capsys)
        assert code == 1 and words in said


def test_the_text_for_people_names_the_flags(project, tmp_path, capsys):
    assert init.main([str(write(tmp_path / "raw", log__csv="a,b,t\n" + lines(events())))]) == 2
    assert "--user a or --user b" in capsys.readouterr().out
    assert init.main([str(write(tmp_path / "shop", log__csv=iso_log()))]) == 0
    said = capsys.readouterr().out
    assert "gr2 run --profile shop" in said and "kunde: by its name" in said and "Item i0" in said


def test_names_of_columns():
    assert [fit("user", name) for name in ("userId", "customer_id", "Kundennummer", "user_rating", "title")] == [2, 2, 2, 0, 0]
    assert (fit("title", "movie_title"), fit("title", "brand_name"), fit("brand", "brand_name"), fit("year", "release_date")) == (
        1,
        0,
        2,
        0,
    )


def test_the_command_has_the_flags_of_the_tool():
    assert {name.replace("-", "_"): text for name, text in OPTIONS.items()} == FLAGS


def test_a_file_or_another_name_in_place_of_the_folder(project, tmp_path, capsys):
    folder = write(tmp_path / "loans", log__csv=iso_log())
    code, said = run(folder / "log.csv", capsys=capsys)
    assert code == 1 and "log.csv: a file, not a folder; name one that holds it" in said and f"gr2 init {folder}" in said
    code, said = run(tmp_path / "loan", capsys=capsys)
    assert code == 1 and f"loan: no such folder; did you mean {folder}?" in said
    assert "did you mean" not in run(tmp_path / "elsewhere/x", capsys=capsys)[1]


def test_a_question_shows_what_its_columns_hold(project, tmp_path, capsys):
    """Names that say nothing; a long number stands in full."""
    rows = [(f"P{user[1:]}", 9780000000000 + int(item[1:]), time, time % 2) for user, item, time in events()]
    folder = write(tmp_path / "loans", log__csv=lines([("aa", "bb", "time", "cc"), *rows]))
    code, said = run(folder, capsys=capsys)
    asked = {question["flags"][0].split()[0]: question["what"] for question in said["questions"]}
    assert code == 2 and set(asked) == {"--item", "--user"}
    assert "aa: 12 different, as P0" in asked["--user"] and "bb: 40 different, as 9780000000000" in asked["--item"]
    said = run(folder, "--user", "aa", "--item", "cc", capsys=capsys)[1]
    assert "log.csv: bb (numbers, 9780000000000 to 9780000000039)" in said["unused"]


def test_rows_that_cannot_be_used_may_be_left_out(project, tmp_path, capsys):
    """Ten rows in a hundred: before there is a profile, ingest.max_bad_share is a flag."""
    rows = iso_log().splitlines(keepends=True)
    rows[5:300:10] = [row.replace("T", " um ") for row in rows[5:300:10]]
    folder = write(tmp_path / "shop", log__csv="".join(rows))
    code, said = run(folder, "--time-format", "iso", capsys=capsys)
    assert code == 1 and "more than ingest.max_bad_share (0.01)" in said and "gr2 init ... --max-bad-share SHARE" in said
    code, said = run(folder, "--time-format", "iso", "--max-bad-share", "0.2", capsys=capsys)
    assert code == 0 and yaml.safe_load(render(project, "shop"))["ingest"]["max_bad_share"] == 0.2
    assert len(ingested(project, "shop")[0]) == len(rows) - 1 - sum(" um " in row for row in rows)
    assert "a share is a number" in run(folder, "--time-format", "iso", "--max-bad-share", "x", capsys=capsys)[1]
    assert "max_bad_share" in run(folder, "--time-format", "iso", "--max-bad-share", "7", capsys=capsys)[1]


def test_without_times_prompts_leave_out_recency(project, tmp_path, capsys):
    """It would be the same constant for every candidate."""
    folder = write(tmp_path / "shop", log__csv=iso_log())
    assert run(folder, "--timestamp", "none", capsys=capsys)[0] == 0
    assert yaml.safe_load(render(project, "shop"))["prompt"]["less_features"] == ["re"]
    assert run(folder, capsys=capsys)[0] == 0
    assert yaml.safe_load(render(project, "shop"))["prompt"]["less_features"] == []
    sequences = "".join(f"{user + 1} {' '.join(str(1 + (7 * user + place) % 40) for place in range(EACH))}\n" for user in range(USERS))
    titles = "".join(f'{{"item_id": {item}, "title": "T{item}"}}\n' for item in range(1, 41))
    pair = write(tmp_path / "pair", sequences__txt=sequences, items__jsonl=titles)
    assert run(pair, capsys=capsys)[0] == 0 and yaml.safe_load(render(project, "pair"))["prompt"]["less_features"] == ["re"]
