"""gr2 validate: what the stages need of a data set, told before they run."""

import json
from pathlib import Path

import pytest
import yaml

from stages.tools import validate
from tests.support.raw_reading import write

ROOT = Path(__file__).resolve().parents[3]


def project(tmp_path, monkeypatch, users=12, items=60, each=24, time="timestamp", **sections):
    """params.yaml of a log in which every user takes `each` of the items."""
    monkeypatch.chdir(tmp_path)
    rows = [f"u{user},i{(7 * user + place) % items},{1000 * user + place}" for user in range(users) for place in range(each)]
    write(tmp_path / "raw", log__csv="\n".join(["user,item,timestamp", *rows, ""]))
    write(tmp_path / "raw", items__csv="item,title\n" + "".join(f"i{item},Thing {item}\n" for item in range(items)))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    table = {"interactions": "log.csv", "items": "items.csv", "timestamp": time} | sections.pop("table", {})
    params["ingest"] |= {"source": "table", "folder": "raw", "table": params["ingest"]["table"] | table}
    for section, values in sections.items():
        params[section] |= values
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))


def validated(capsys):
    code = validate.main(["params.yaml", "--json"])
    return code, json.loads(capsys.readouterr().out)


def level(found):
    return {check["name"]: check["level"] for check in found["checks"]}


def test_a_sound_data_set(tmp_path, monkeypatch, capsys):
    project(tmp_path, monkeypatch)
    code, found = validated(capsys)
    assert code == 0 and found["ok"] and {name for name, how in level(found).items() if how != "ok"} == {"test slates", "semantic IDs"}
    assert (found["data"]["users"], found["data"]["items"], found["data"]["interactions"]) == (12, 60, 288)
    assert list((tmp_path / ".gr2/validate").iterdir()) == [] and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("change", "fault", "remedy"),
    [
        ({"each": 52}, "candidates", "retrieve.candidates"),
        ({"ingest": {"min_interactions": 25}}, "ingest", ""),
        ({"ingest": {"min_base": 20}}, "split test", "min_base"),
        ({"tokenize": {"levels": 2, "codebook_size": 7}}, "semantic IDs", "codebook_size"),
        ({"traces": {"time_folds": 100}}, "folds in time", "time_folds"),
        ({"prompt": {"titles": True}, "table": {"title": ""}}, "titles", "prompt.titles"),
        ({"table": {"title": "name"}}, "ingest", ""),
        (
            {"items": 15, "each": 12, "ingest": {"min_interactions": 5}, "embed": {"collaborative": {"mode": "concat"}}},
            "items to learn from",
            "",
        ),
    ],
)
def test_what_a_stage_would_fail_on_is_a_fault(tmp_path, monkeypatch, capsys, change, fault, remedy):
    project(tmp_path, monkeypatch, **change)
    code, found = validated(capsys)
    assert code == 1 and not found["ok"] and level(found)[fault] == "fault"
    assert remedy in next(check["remedy"] for check in found["checks"] if check["name"] == fault)
    validate.main(["params.yaml"])
    assert "FAULT" in capsys.readouterr().out


def test_what_makes_a_result_weak_is_a_warning(tmp_path, monkeypatch, capsys):
    project(tmp_path, monkeypatch, time="", table={"title": ""}, traces={"time_folds": 2})
    code, found = validated(capsys)
    assert code == 0 and level(found)["times"] == level(found)["titles"] == "warning"
    assert "embed.collaborative" in next(check["remedy"] for check in found["checks"] if check["name"] == "titles")


def test_a_wrong_key_is_no_traceback(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch, table={"usr": "x"})
    with pytest.raises(SystemExit, match=r"gr2 validate: .*usr"):
        validate.main(["params.yaml"])


@pytest.mark.parametrize("missing", ["drop", "id"])
def test_rows_that_are_left_out_on_purpose_are_no_warning(tmp_path, monkeypatch, capsys, missing):
    project(tmp_path, monkeypatch)
    catalogue = (tmp_path / "raw/items.csv").read_text().splitlines()
    (tmp_path / "raw/items.csv").write_text("\n".join(catalogue[:-3]) + "\n")
    assert validate.main(["params.yaml"]) == 1 and "ingest.missing_items: id calls" in capsys.readouterr().out
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["ingest"]["missing_items"] = missing
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    code, found = validated(capsys)
    assert code == 0 and level(found)["rows"] == "ok"
