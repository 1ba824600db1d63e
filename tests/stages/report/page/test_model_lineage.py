from pathlib import Path

import yaml

from stages.report.page.model_lineage import model_lineage


def out(path: str, md5: str = "0123456789abcdef") -> dict:
    return {"path": path, "hash": "md5", "md5": md5, "size": 1}


LOCK = {
    "schema": "2.0",
    "stages": {
        "rl": {
            "cmd": "x",
            "deps": [out("data/sft/model", "aaaa.dir"), out("stages/rl/dapo.py", "cc")],
            "outs": [out("data/quantize/model")],
        },
        "other": {"cmd": "x", "outs": [out("data/other/x")]},
        "sft": {
            "cmd": "x",
            "deps": [out("data/ingest/items.parquet")],
            "params": {"params.yaml": {"sft": {"lr": 0.1}}},
            "outs": [out("data/sft/model", "aaaa.dir"), out("data/sft/metrics.json", "bbbbbbbbbbbb")],
        },
        "ingest": {"cmd": "x", "outs": [out("data/ingest/items.parquet")]},
    },
}


def write(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "dvc.lock"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_the_chain_runs_from_the_data_to_the_model_and_leaves_the_rest_out(tmp_path):
    chain = model_lineage(lock=write(tmp_path, LOCK))
    assert [link.stage for link in chain] == ["ingest", "sft", "rl"]
    assert chain[1].outputs == [("data/sft/model", "aaaa.dir"), ("data/sft/metrics.json", "bbbbbbbb")]
    assert chain[1].params == {"sft": {"lr": 0.1}}
    assert not any(link.broken for link in chain)


def test_a_stage_fed_with_something_else_is_marked(tmp_path):
    document = yaml.safe_load(yaml.safe_dump(LOCK))
    document["stages"]["rl"]["deps"][0]["md5"] = "ffff.dir"
    assert model_lineage(lock=write(tmp_path, document))[-1].broken == ["data/sft/model"]


def test_without_a_readable_lock_there_is_no_chain(tmp_path):
    assert model_lineage(lock=tmp_path / "dvc.lock") == []
    assert model_lineage(lock=write(tmp_path, "stages: [")) == []
    assert model_lineage(lock=write(tmp_path, "just a line")) == []
    assert model_lineage("data/nobody/made", lock=write(tmp_path, LOCK)) == []
