import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stages.shared.errors import StageError
from stages.shared.outputs import read_json, stage_outputs
from stages.shared.run import set_seed
from stages.shared.tables import SIDS, read_table
from stages.tokenize.codebook import decode_codes
from stages.tokenize.model import Autoencoder
from stages.tokenize.params import TokenizeParams
from stages.tokenize.tokenize import tokenize

SMALL = {"levels": 3, "codebook_size": 8, "latent_dim": 4, "hidden_dims": [16], "warmup_epochs": 4, "epochs": 8, "batch_size": 32}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with embeddings of 60 items, the last two alike; tests run in it."""
    monkeypatch.chdir(tmp_path)
    vectors = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    vectors[59] = vectors[58]
    save(tmp_path, vectors)
    return tmp_path


def save(project, vectors):
    (project / "data" / "embed").mkdir(parents=True, exist_ok=True)
    np.save(project / "data" / "embed" / "embeddings.npy", vectors)


def run(project, **more) -> dict[str, bytes]:
    params = TokenizeParams(**{**SMALL, **more})
    set_seed(params.seed)
    with stage_outputs("tokenize") as outputs:
        tokenize(params, outputs)
    return {path.name: path.read_bytes() for path in (project / "data" / "tokenize").iterdir()}


def test_outputs_fit_together(project):
    assert sorted(run(project)) == ["codebooks.safetensors", "metrics.json", "sids.parquet", "usage.json"]
    out = project / "data" / "tokenize"
    sids, metrics = read_table(out / "sids.parquet", SIDS), read_json(out / "metrics.json")
    codes = np.array(sids["codes"].to_list())
    assert sids["item"].to_list() == list(range(60)) and sids["sid"].n_unique() == 60
    assert sids["sid"][3] == f"<|sid_begin|><s_a_{codes[3, 0]}><s_b_{codes[3, 1]}><s_c_{codes[3, 2]}><|sid_end|>"

    assert metrics["uniqueness"]["after"] == 1.0 and metrics["uniqueness"]["before"] <= 58 / 60
    usage = read_json(out / "usage.json")
    assert [sum(level) for level in usage] == [60, 60, 60] and {len(level) for level in usage} == {8}
    assert metrics["usage"] == [sum(count > 0 for count in level) / 8 for level in usage]

    weights = load_file(out / "codebooks.safetensors")
    model = Autoencoder(12, [16], 4)
    model.load_state_dict({name: weight for name, weight in weights.items() if name != "codebooks"})
    embeddings = np.load(project / "data" / "embed" / "embeddings.npy")
    with torch.no_grad():
        decoded = model.decoder(decode_codes(torch.from_numpy(codes), weights["codebooks"])).numpy()
    assert metrics["reconstruction_error"] == pytest.approx(((decoded - embeddings) ** 2).mean(), rel=1e-4)


def test_same_seed_same_bytes_other_seed_other_codes(project):
    first = run(project)
    assert run(project) == first
    assert run(project, seed=8)["sids.parquet"] != first["sids.parquet"]


@pytest.mark.parametrize(
    "change",
    [
        {"levels": 4},
        {"codebook_size": 16},
        {"latent_dim": 3},
        {"hidden_dims": []},
        {"epochs": 13},
        {"batch_size": 16},
        {"warmup_epochs": 5},
        {"lr": 0.01},
        {"beta": 0.9},
        {"ema_decay": 0.5},
        {"revive_after": 1},
    ],
)
def test_every_parameter_does_something(project, change):
    assert run(project, **change)["codebooks.safetensors"] != run(project)["codebooks.safetensors"]


def test_the_gate_counts_what_collides_and_keeps_earlier_outputs(project):
    before = run(project)
    with pytest.raises(StageError, match=r"uniqueness 0\.\d+ is below tokenize.uniqueness_gate 0.99: \d+ of 60 items share"):
        run(project, assignment="nearest")
    assert {path.name: path.read_bytes() for path in (project / "data" / "tokenize").iterdir()} == before
    nearest = run(project, assignment="nearest", uniqueness_gate=0.0)
    assert nearest["codebooks.safetensors"] == before["codebooks.safetensors"] and nearest["sids.parquet"] != before["sids.parquet"]


def test_bad_embeddings_are_named(project):
    bad = np.load(project / "data" / "embed" / "embeddings.npy")
    bad[7, 3] = np.nan
    save(project, bad)
    with pytest.raises(StageError, match="embedding of item 7 is not finite"):
        run(project)
    save(project, bad.astype(np.float64))
    with pytest.raises(StageError, match="expected float32"):
        run(project)
    (project / "data" / "embed" / "embeddings.npy").write_bytes(b"\x93NUMPY cut short")
    with pytest.raises(StageError, match="not a readable array"):
        run(project)
    (project / "data" / "embed" / "embeddings.npy").unlink()
    with pytest.raises(StageError, match="gr2 run embed"):
        run(project)
