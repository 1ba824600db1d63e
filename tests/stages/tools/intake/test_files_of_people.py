"""gr2 init on files as people have them: names in other languages, decimal commas, parts, objects, catalogues with gaps, other formats."""

import gzip
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

from stages.retrieve.given.files import read_tables
from stages.retrieve.given.impression import Impression
from stages.retrieve.params import RetrieveParams
from stages.tools import validate
from stages.tools.intake.columns import Column
from stages.tools.intake.words import fit
from tasks.project.profiles import render
from tests.stages.tools.intake.test_init import ROOT, USERS, events, ingested, lines, run
from tests.support.raw_reading import write


def nested_rows(folder, name, rows):
    folder.mkdir()
    if name.endswith(".parquet"):
        pl.DataFrame(rows).write_parquet(folder / name)
    else:
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def taken(said):
    return {key: choice["value"] for key, choice in said["taken"].items()}


NAMES = {
    "user": "id_cliente ID_Usuario codigo-cliente Kundennummer utilisateur_id cliente.id",
    "item": "cod_producto ArtikelNr referencia_articulo id_produit codice_prodotto product.id",
    "timestamp": "fecha_compra Bestelldatum date_achat Fecha data_acquisto horodatage",
    "rating": "valoración puntuación note Produktbewertung",
    "title": "nombre_producto Artikelbezeichnung nom_produit product.name título",
    "brand": "marca nombre_marca nom_marque brand.name",
    "categories": "categoría categoría_producto Produktkategorie category_path famille",
    "year": "año año_publicación année",
    "slate": "id_impresión requete_id",
    "taken": "clic comprado",
}


@pytest.mark.parametrize("role", NAMES)
def test_names_in_other_languages(role):
    assert [name for name in NAMES[role].split() if not fit(role, name)] == []
    others = {"title": ("item", "brand"), "brand": ("title",), "timestamp": ("item",), "categories": ("item",)}.get(role, ())
    assert [(name, other) for name in NAMES[role].split() for other in others if fit(other, name)] == []


def test_decimal_commas_are_neither_times_nor_lost(project, tmp_path, capsys):
    rows = [
        (n, user, item, f"2024-01-{1 + n % 28:02}T10:00:00+02:00", f"{n % 9},5", f"{n % 4 + 1},0")
        for n, (user, item, _) in enumerate(events())
    ]
    log = lines([("Bestell-Nr.", "Kundennummer", "Artikelnummer", "Bestelldatum", "Einzelpreis", "Bewertung"), *rows], ";")
    code, said = run(write(tmp_path / "laden", log__csv=log), capsys=capsys)
    assert code == 0, said
    assert (taken(said)["timestamp"], taken(said)["rating"], taken(said)["decimal"]) == ("Bestelldatum", "Bewertung", ",")
    assert said["rows"][1]["rating"] == "2" and said["rows"][0]["time (UTC)"] == "2024-01-01 08:00:00"
    assert yaml.safe_load(render(project, "laden"))["ingest"]["table"]["decimal"] == ","


def test_a_comma_between_thousands_is_not_taken_for_a_decimal_one():
    def column(*texts):
        return Column("x", pl.Series(texts), "text")

    assert column("4,5", "3").has_decimal_commas and column("1,234", "1,5").has_decimal_commas
    assert not any(one.has_decimal_commas for one in (column("1,234", "12"), column("1,5", "1.5"), column("a,b"), column("3", "4")))
    assert [column(*texts).times for texts in (("21,99", "4,50"), ("1,5", "2"))] == [[], []]


def test_a_column_of_products_may_be_their_names_and_a_department_is_no_user(project, tmp_path, capsys):
    """Neither is a word of the name a list that was shown, with its department taken."""
    header = "Order,Date,Email,SKU,Product,Dept"
    kinds = ["Wood", "Glass", "Clay"]
    rows = []
    for number, (user, item, time) in enumerate(events()):
        kind = kinds[int(item[1:]) % 3]
        rows.append((f"#{number}", time, f"{user}@x.org", item, f"{kind} thing no. {item[1:]}", kind))
    code, said = run(write(tmp_path / "shop", export__csv=f"{header}\n{lines(rows)}"), capsys=capsys)
    assert code == 0, said
    assert {"user": "Email", "item": "SKU", "title": "Product", "categories": "Dept"}.items() <= taken(said).items() and said["lists"] == {}


@pytest.mark.parametrize("ending", ["csv", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("folder", [True, False])
def test_parts_of_a_log_are_one_table(project, tmp_path, capsys, ending, folder):
    raw = tmp_path / "raw"
    (raw / "log").mkdir(parents=True)
    table = pl.DataFrame(events(), schema=["customer", "sku", "at"], orient="row")
    for number in range(3):
        path = raw / ("log" if folder else "") / f"export-{number:04}.{ending}"
        part = table.slice(number * 100, 100)
        if ending == "parquet":
            part.write_parquet(path)
        elif ending == "csv":
            part.write_csv(path)
        else:
            path.write_bytes(gzip.compress("".join(f"{json.dumps(row)}\n" for row in part.to_dicts()).encode()))
    if folder:
        (raw / "log/_SUCCESS").touch()
    else:
        (raw / "log").rmdir()
    write(raw, items__csv="sku,name\n" + lines((f"i{n}", f"Thing {n}") for n in range(40)))
    code, said = run(raw, capsys=capsys)
    assert code == 0, said
    assert taken(said)["interactions"] == (f"log/*.{ending}" if folder else f"export-000*.{ending}")
    assert any("3 parts with the same columns, read as one table: export-0000" in file for file in said["files"])
    assert ingested(project, "raw")[0] == events()


def test_what_differs_is_not_put_together(project, tmp_path, capsys):
    more = lines([("user", "item", "time", "more"), *((*row, 1) for row in events())])
    folder = write(tmp_path / "raw", log1__csv=lines([("user", "item", "time"), *events()]), log2__csv=more)
    code, said = run(folder, capsys=capsys)
    assert code == 2 and said["questions"][0]["flags"] == ["--interactions log1.csv", "--interactions log2.csv"]
    (folder / "mixed").mkdir()
    write(folder / "mixed", a__csv="x,y\n1,2\n", b__txt="no table")
    code, said = run(folder, "--interactions", "log1.csv", capsys=capsys)
    assert code == 0 and any("not parts of one table" in file for file in said["files"])


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_objects_within_rows_are_columns(project, tmp_path, capsys, ending):
    rows = [
        {"user": {"id": u, "land": "ES"}, "product": {"id": i, "name": f"Thing {i}", "kinds": [{"id": 1, "name": "A"}]}, "ts": t}
        for u, i, t in events()
    ]
    raw = nested_rows(tmp_path / "raw", f"events.{ending}", rows)
    code, said = run(raw, capsys=capsys)
    assert code == 0, said
    expected = {"user": "user.id", "item": "product.id", "title": "product.name", "categories": "product.kinds", "timestamp": "ts"}
    assert expected.items() <= taken(said).items() and said["rows"][0]["categories"] == "A"
    assert ingested(project, "raw")[0] == events()


def test_a_catalogue_with_gaps_is_asked_about(project, tmp_path, capsys):
    log = lines([("user", "item", "time"), *events()])
    items = "item,title\n" + lines((f"i{n}", "" if n == 3 else f"Thing {n}") for n in range(36))
    folder = write(tmp_path / "raw", log__csv=log, items__csv=items)
    code, said = run(folder, capsys=capsys)
    assert code == 2 and said["questions"][0]["flags"] == ["--missing-items id", "--missing-items drop"]
    gone = sum(item in ("i3", "i36", "i37", "i38", "i39") for _, item, _ in events())
    assert f"{gone} of {len(events())} rows of log.csv have one of 5 items" in said["questions"][0]["what"]
    assert not (project / "infra/profiles/raw.yaml").exists()
    code, said = run(folder, "--missing-items", "id", capsys=capsys)
    assert code == 0 and said["items"] == 40 and yaml.safe_load(render(project, "raw"))["ingest"]["missing_items"] == "id"
    code, said = run(folder, "--missing-items", "drop", capsys=capsys)
    assert code == 0 and said["items"] == 35 and said["interactions"] == len(events()) - gone
    code, said = run(folder, "--missing-items", "x", capsys=capsys)
    assert code == 1 and "missing_items" in said


FOREIGN = {
    "shop.xlsx": (b"PK\x03\x04", "Excel workbook; save its sheet as CSV"),
    "shop.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel"),
    "shop.zip": (b"PK\x03\x04", "zip archive; unpack it"),
    "shop.db": (b"SQLite format 3\0", "sqlite3 -header -csv"),
    "shop.feather": (b"ARROW1\0\0", "read_ipc"),
    "shop.orc": (b"ORC\x08", "pyarrow.orc"),
    "shop.avro": (b"Obj\x01", "read_avro"),
    "shop.csv.zst": (b"\x28\xb5\x2f\xfd", "zstd -d"),
    "shop.csv.bz2": (b"BZh91AY&SY", "bunzip2"),
    "shop.pkl": (b"\x80\x05", "pickle"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_programs_are_named_with_the_remedy(project, tmp_path, capsys, name):
    start, words = FOREIGN[name]
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / name).write_bytes(start + b"\0" * 40)
    code, said = run(folder, capsys=capsys)
    assert code == 1 and words in said and name in said


@pytest.mark.parametrize("user", ["ORCuser", "BZh9", "ARROW1", "PK", "%PDF"])
def test_a_text_that_begins_with_such_letters_is_a_text(project, tmp_path, capsys, user):
    folder = write(tmp_path / "raw", log__csv=lines([(user, "item", "time"), *events()]))
    code, said = run(folder, "--user", user, capsys=capsys)
    assert code == 0 and said["users"] == USERS


DRAWN = random.Random(1)
# request, visitor, time, what was shown, place of what was taken; 4: nothing
SHOWN = [
    (f"r{n}", f"v{n % 12}", 1_600_000_000 + 3600 * n, [f"0{item}" for item in DRAWN.sample(range(40), 4)], DRAWN.randrange(5))
    for n in range(240)
]
NOTHING = sum(place == 4 for *_, place in SHOWN)


@pytest.mark.parametrize("written", ["json", "python", "numpy"])
def test_lists_that_are_written_out_in_a_cell(project, tmp_path, capsys, written):
    """As pandas leaves them; the log is what was taken of them."""

    def cell(ids):
        text = {"json": json.dumps(ids), "python": str(ids), "numpy": str(ids).replace(",", "")}[written]
        return '"' + text.replace('"', '""') + '"'

    rows = [(name, user, time, cell(ids), ids[place] if place < 4 else "") for name, user, time, ids, place in SHOWN]
    raw = write(tmp_path / "raw", shown__csv=lines([("request_id", "visitor_id", "ts", "shown_ids", "clicked_id"), *rows]))
    code, said = run(raw, "--order", "shown", capsys=capsys)
    assert code == 0, said
    assert said["lists_sizes"]["nothing_taken"] == NOTHING and said["lists_rows"][0]["shown"] == " ".join(SHOWN[0][3])
    params = RetrieveParams.model_validate(yaml.safe_load(render(project, "raw"))["retrieve"])
    read = [one for _, _, one in read_tables(Path(params.reads), params.given) if isinstance(one, Impression)]
    assert [(one.candidates, one.grades) for one in read] == [
        (tuple(ids), tuple(int(place == number) for number in range(4))) for _, _, _, ids, place in SHOWN
    ]
    log, items = ingested(project, "raw")
    assert [row[:2] for row in log] == [(user, ids[place]) for _, user, _, ids, place in SHOWN if place < 4]
    assert set(items["source_id"]) == {item for *_, ids, _ in SHOWN for item in ids}


def shown_rows(yes, no):
    return lines(
        [
            ("id_impresion", "id_usuario", "fecha", "id_articulo", "posicion", "clic"),
            *(
                (name, user, time, item, number, yes if number == place else no)
                for name, user, time, ids, place in SHOWN
                for number, item in enumerate(ids)
            ),
        ],
        "\t",
    )


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("True", "False"), ("1", "0"), ("Y", "N"), ("yes", "no")])
def test_rows_of_shown_items_that_say_yes_and_no(project, tmp_path, capsys, yes, no):
    code, said = run(write(tmp_path / "raw", impresiones__tsv=shown_rows(yes, no)), capsys=capsys)
    assert code == 0, said
    assert said["lists_sizes"]["lists"] == 240 and said["lists_sizes"]["nothing_taken"] == NOTHING and said["interactions"] <= 240 - NOTHING
    params = yaml.safe_load(render(project, "raw"))
    assert params["ingest"]["min_rating"] == 1 and params["retrieve"]["given"]["taken"] == "clic"
    log, _ = ingested(project, "raw")
    assert len(log) == 4 * 240


def test_rows_of_shown_items_that_do_not_say_no(project, tmp_path, capsys):
    """A row without a rating would stay in the log."""
    folder = write(tmp_path / "raw", impresiones__tsv=shown_rows("1", ""))
    code, said = run(folder, "--taken", "clic", "--lists", "impresiones.tsv", capsys=capsys)
    assert code == 1 and f"'clic' is empty in {720 + NOTHING} of the first 960 rows" in said and "write 0 there" in said


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_lists_with_objects(project, tmp_path, capsys, ending):
    rows = [
        {"visitor": {"id": user}, "ts": time, "offer": {"shown_ids": ids, "clicked": ids[place] if place < 4 else None}}
        for _, user, time, ids, place in SHOWN
    ]
    raw = nested_rows(tmp_path / "raw", f"shown.{ending}", rows)
    code, said = run(raw, "--order", "shown", capsys=capsys)
    assert code == 0, said
    assert {key: choice["value"] for key, choice in said["lists"].items()}.items() >= {
        ("user", "visitor.id"), ("candidates", "offer.shown_ids"), ("taken", "offer.clicked"),
    }  # fmt: skip
    assert said["lists_sizes"]["lists"] == 240 and said["lists_sizes"]["nothing_taken"] == NOTHING


def told_command(said):
    """Of a message: what follows python -c or sed."""
    return re.search(r"""(python3? -c "[^"]+"|sed -i 1d '[^']+')""", said)[1]


@pytest.mark.parametrize("separator", [",", ";"])
def test_lines_of_orders_are_put_together_with_their_orders(project, tmp_path, capsys, separator):
    """Word for word: the command that is told, in the folder of the files."""
    orders = [(f"{n:04}", user, time) for n, (user, _, time) in enumerate(events())]
    items = [(f"{n:04}", item, 1) for n, (_, item, _) in enumerate(events())]
    items += [(f"{n:04}", f"i{(int(item[1:]) + 20) % 40}", 1) for n, (_, item, _) in enumerate(events())]
    files = {
        "orders__csv": lines([("order_id", "customer_id", "purchased_at"), *orders], separator),
        "order_items__csv": lines([("order_id", "product_id", "qty"), *items], separator),
        "products__csv": lines([("product_id", "name"), *((f"i{n}", f"Thing {n}") for n in range(40))], separator),
    }
    folder = write(tmp_path / "raw", **files)
    code, said = run(folder, capsys=capsys)
    assert code == 1 and "order_items.csv says what was taken, and orders.csv by whom ('customer_id')" in said
    subprocess.run(told_command(said).replace("python ", f"{sys.executable} "), shell=True, cwd=folder, check=True)
    for name in ("orders.csv", "order_items.csv"):
        (folder / name).unlink()
    if separator != ",":  # what is written has commas
        (folder / "products.csv").write_text(files["products__csv"].replace(separator, ","))
    code, said = run(folder, capsys=capsys)
    assert code == 0, said
    assert {"interactions": "log.csv", "items": "products.csv", "user": "customer_id", "item": "product_id"}.items() <= taken(said).items()
    assert said["log_rows"] == 2 * len(events())


LONG = '"one\ntwo ""x"", three; four"'
OTHERWISE = {
    "for Excel": ("sep=;\n" + lines([("user", "item", "time"), *events()], ";"), "begins with sep=;"),
    "over lines": (lines([("user", "item", "time", "note"), *((*row, LONG) for row in events())]), "over several lines"),
    "over lines, semicolons": (lines([("user", "item", "time", "note"), *((*row, LONG) for row in events())], ";"), "over several lines"),
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_text_that_is_written_for_others_and_the_command_that_mends_it(project, tmp_path, capsys, case):
    content, words = OTHERWISE[case]
    folder = write(tmp_path / "raw", log__csv=content)
    code, said = run(folder, capsys=capsys)
    assert code == 1 and words in said and "log.csv" in said
    subprocess.run(told_command(said), shell=True, cwd=folder, check=True)
    code, said = run(folder, capsys=capsys)
    assert code == 0, said
    assert [row[:2] for row in ingested(project, "raw")[0]] == [row[:2] for row in events()]


def test_a_catalogue_that_cannot_be_read_is_said_where_titles_are_missed(project, tmp_path, capsys):
    folder = write(
        tmp_path / "raw", log__csv=lines([("user", "item", "time"), *events()]), items__csv='item,text\ni1,"a\nb"\ni2,"c\nd"\ni3,e\n'
    )
    code, said = run(folder, capsys=capsys)
    assert code == 0 and "items.csv: not read, see above" in said["taken"]["items"]["why"]


def test_a_time_of_day_in_a_column_of_its_own_is_said_not_to_be_read(project, tmp_path, capsys):
    rows = [(user, item, f"{1 + number % 28:02}.05.2024", f"{number % 24:02}:10") for number, (user, item, _) in enumerate(events())]
    folder = write(tmp_path / "raw", log__csv=lines([("kunde", "artikel", "datum", "uhrzeit"), *rows], ";"))
    code, said = run(folder, capsys=capsys)
    assert code == 0 and "'uhrzeit' has the time of day and is NOT read" in said["taken"]["timestamp"]["why"]


@pytest.mark.parametrize(
    ("name", "form"), [("part-00000", "parquet"), ("log.parq", "parquet"), ("events.log", "jsonl"), ("events.NDJSON", "jsonl")]
)
def test_files_are_known_by_what_they_hold_where_their_ending_does_not_say_it(project, tmp_path, capsys, name, form):
    """Lists that were shown are read as logs are."""
    (tmp_path / "raw").mkdir()
    table = pl.DataFrame(
        [(user, time, ids, [ids[place]] if place < 4 else []) for _, user, time, ids, place in SHOWN],
        schema=["user", "at", "shown", "clicked"],
        orient="row",
    )
    for path, rows in (
        (tmp_path / "raw" / name, pl.DataFrame(events(), schema=["user", "item", "time"], orient="row")),
        (tmp_path / f"x{name}", table),
    ):
        rows.write_parquet(path) if form == "parquet" else path.write_text("".join(f"{json.dumps(row)}\n" for row in rows.to_dicts()))
    assert run(tmp_path / "raw", capsys=capsys)[0] == 0 and ingested(project, "raw")[0] == events()
    if name != "events.log":
        params = RetrieveParams.model_validate(
            {"model": "given", "reads": str(tmp_path / f"x{name}"), "given": {"time": "at", "candidates": "shown", "taken": "clicked"}}
        )
        assert [one.candidates for _, _, one in read_tables(Path(params.reads), params.given)] == [tuple(ids) for *_, ids, _ in SHOWN]


@pytest.mark.parametrize("each", [8, 20, 30])
def test_the_profile_works_behind_that_of_short_runs(project, tmp_path, capsys, each):
    """As docs/own-data.md has it: gr2 run --profile smoke --profile NAME, for short histories and long ones."""
    shutil.copy(ROOT / "infra/profiles/smoke.yaml", project / "infra/profiles")
    log = [
        (f"u{user}", f"i{(7 * user + place) % 60}", 1_600_000_000 + 3600 * (100 * user + place))
        for user in range(20)
        for place in range(each)
    ]
    code, said = run(write(tmp_path / "raw", log__csv=lines([("user", "item", "time"), *log])), capsys=capsys)
    assert code == 0, said
    (tmp_path / "params.yaml").write_text(render(project, "smoke", "raw"))
    code = validate.main([str(tmp_path / "params.yaml"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0, [check for check in found["checks"] if check["level"] == "fault"]
