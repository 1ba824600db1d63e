"""Vectors in shards: the same bytes however many there are; what does not belong together is refused by name."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.embed import encode
from stages.embed.params import SHARDS, EmbedParams
from stages.embed.shards import embed_shard, rows_of
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from tests.support.embed_data import run, sentences, tiny_text_model, write_items

ITEMS, BATCH = 21, 4  # six batches, the last of one item


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_items(tmp_path, sentences(ITEMS))
    return tmp_path


def params_of(model: Path, shards: int) -> EmbedParams:
    sharded = {"shards": list(range(shards)), "reads": SHARDS} if shards else {}
    return EmbedParams(model=str(model), pooling="mean", batch_size=BATCH, **sharded)


def make(shard: int, params: EmbedParams) -> None:
    with stage_outputs(f"embed_shard@{shard}", final=Path(SHARDS) / str(shard)) as outputs:
        embed_shard(shard, params, outputs)


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_the_stage_writes_the_same_bytes_however_many_shards(project, model, shards):
    run(params_of(model, 0))
    alone = {path.name: path.read_bytes() for path in (project / "data/embed").iterdir()}
    params = params_of(model, shards)
    for shard in params.shards:
        make(shard, params)
    run(params)
    assert {path.name: path.read_bytes() for path in (project / "data/embed").iterdir()} == alone
    assert not list((project / ".gr2/resume").rglob("*.part"))


def test_a_shard_has_whole_batches_and_every_row_is_in_one():
    order = list(np.random.default_rng(0).permutation(ITEMS))
    shards = [rows_of(order, shard, 4, BATCH) for shard in range(4)]
    assert sorted(row for rows in shards for row in rows) == list(range(ITEMS))
    assert shards[1] == [*order[4:8], *order[20:21]]


def test_the_stage_itself_encodes_nothing_and_a_shard_its_own_alone(project, model, monkeypatch):
    params, encoded = params_of(model, 3), []
    in_batches = encode.in_batches

    def counted(encode_rows, rows, *more):
        encoded.append(len(rows))
        return in_batches(encode_rows, rows, *more)

    monkeypatch.setattr(encode, "in_batches", counted)
    for shard in params.shards:
        make(shard, params)
    run(params)
    assert encoded == [8, 8, 5]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"of": 4}, "it is no shard 1 of 2 of these 21 items; rerun: gr2 run --force embed_shard@1"),
        ({"dtype": "float16"}, "several dtypes"),
    ],
)
def test_shards_that_do_not_belong_together(project, model, change, problem):
    params = params_of(model, 2)
    for shard in params.shards:
        make(shard, params)
    made = project / SHARDS / "1/made.json"
    made.write_text(json.dumps({**json.loads(made.read_text()), **change}))
    with pytest.raises(StageError, match=problem):
        run(params)


@pytest.mark.parametrize("values", [{"shards": [0, 1]}, {"reads": SHARDS}, {"shards": [1, 2], "reads": SHARDS}])
def test_keys_that_do_not_go_together(values):
    with pytest.raises(ValueError, match="shards"):
        EmbedParams(**values)
