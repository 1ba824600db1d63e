import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json
from stages.shared.core.schemas import SID_MAP, SIDS, read_table
from stages.shared.slates.trie import SidTrie
from stages.tokenize.quantizers.codebook import decode_codes
from stages.tokenize.quantizers.model import Autoencoder
from tests.support.tokenize_project import make_project, run, save_embeddings


@pytest.fixture
def project(tmp_path, monkeypatch):
    """60 items, the last two alike, in data/ingest and data/embed; tests run in it."""
    monkeypatch.chdir(tmp_path)
    vectors = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    vectors[59] = vectors[58]
    make_project(tmp_path, vectors)
    return tmp_path


def test_outputs_fit_together(project):
    assert sorted(run(project)) == [
        "codebooks.safetensors",
        "metrics.json",
        "sid_map.parquet",
        "sids.parquet",
        "trie.safetensors",
        "usage.json",
    ]
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

    back = read_table(out / "sid_map.parquet", SID_MAP)
    assert back["codes"].to_list() == sorted(codes.tolist())
    assert dict(back.select("item", "sid").iter_rows()) == dict(sids.select("item", "sid").iter_rows())
    assert back["source_id"].to_list() == [f"s{item}" for item in back["item"]]
    np.testing.assert_array_equal(SidTrie.load(out / "trie.safetensors").item(codes), np.arange(60))


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
        {"train_items": 50},
        {"method": "rqkmeans"},
        {"codebook_start": "uniform"},
        {"codebook_start": "normal"},
        {"ema": False},
        {"diversity_weight": 0.5},
        {"contrastive_weight": 0.5},
        {"contrastive_weight": 0.5, "contrastive_temperature": 0.5},
    ],
)
def test_every_parameter_does_something(project, change):
    plain = {key: change[key] for key in ("contrastive_weight",) if len(change) > 1 and key in change}
    assert run(project, **change)["codebooks.safetensors"] != run(project, **plain)["codebooks.safetensors"]


def test_the_search_and_the_refinement_do_something(project):
    plain = run(project, method="rqkmeans")
    assert run(project, method="rqkmeans", refine_rounds=1)["codebooks.safetensors"] != plain["codebooks.safetensors"]
    beam = run(project, method="rqkmeans", beam=4)
    assert beam["codebooks.safetensors"] == plain["codebooks.safetensors"] and beam["sids.parquet"] != plain["sids.parquet"]


def test_both_unique_modes_are_unique_and_the_optimal_one_costs_less(project):
    found = {}
    for mode in ("nearest", "random_last", "optimal_last"):
        run(project, assignment=mode, uniqueness_gate=0.0)
        found[mode] = read_json(project / "data/tokenize/metrics.json")
    assert found["random_last"]["uniqueness"]["after"] == found["optimal_last"]["uniqueness"]["after"] == 1.0
    assert found["nearest"]["uniqueness"]["after"] < 1.0 and found["nearest"]["sids_shared"] > 0
    assert (
        found["nearest"]["reconstruction_error"]
        <= found["optimal_last"]["reconstruction_error"]
        < found["random_last"]["reconstruction_error"]
    )
    assert len({str(metrics["reconstruction_error_by_level"][:2]) for metrics in found.values()}) == 1


def test_a_prefix_with_more_items_than_codes_spills(project, capsys):
    vectors = np.load(project / "data/embed/embeddings.npy")
    vectors[20:] = vectors[20]
    save_embeddings(project, vectors)
    for mode in ("random_last", "optimal_last"):
        run(project, assignment=mode)
        metrics = read_json(project / "data/tokenize/metrics.json")
        assert metrics["uniqueness"]["after"] == 1.0 and metrics["overflowed"] >= 32 and metrics["prefix_group_max"] <= 8
        assert f"{metrics['overflowed']} items moved to their next-best prefix" in capsys.readouterr().out


def test_a_nearest_sid_that_two_share_is_once_in_the_trie(project):
    run(project, assignment="nearest", uniqueness_gate=0.0)
    codes = np.array(read_table(project / "data/tokenize/sids.parquet", SIDS)["codes"].to_list())
    trie = SidTrie.load(project / "data/tokenize/trie.safetensors")
    assert len(trie.items) == len(np.unique(codes, axis=0)) < 60
    assert (codes[trie.item(codes)] == codes).all()


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
    save_embeddings(project, bad)
    with pytest.raises(StageError, match="embedding of item 7 is not finite"):
        run(project)
    save_embeddings(project, bad.astype(np.float64))
    with pytest.raises(StageError, match="expected float32"):
        run(project)
    (project / "data" / "embed" / "embeddings.npy").write_bytes(b"\x93NUMPY cut short")
    with pytest.raises(StageError, match="not a readable array"):
        run(project)
    (project / "data" / "embed" / "embeddings.npy").unlink()
    with pytest.raises(StageError, match="gr2 run embed"):
        run(project)


def test_constant_embeddings_and_too_few_items_are_named(project):
    save_embeddings(project, np.ones((60, 12), dtype=np.float32))
    with pytest.raises(StageError, match=r"all 60 embeddings are the same; look at the items' text and at embed.model"):
        run(project)
    save_embeddings(project, np.ones((59, 12), dtype=np.float32))
    with pytest.raises(StageError, match=r"59 vectors for the 60 items of data/ingest/items.parquet; rerun: gr2 run embed"):
        run(project)
    make_project(project, np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32))
    with pytest.raises(StageError, match=r"5 items with different embeddings cannot fill 8 codes; lower tokenize.codebook_size"):
        run(project)


def test_keys_that_contradict_each_other_are_refused():
    from stages.shared.core.params import validate_section
    from stages.tokenize.params import TokenizeParams

    for values, message in (
        ({"append_sha256": "0" * 64}, "append_sha256 is set without append_to"),
        ({"method": "rqkmeans", "diversity_weight": 0.1}, "train an autoencoder"),
        ({"refine_rounds": 1}, "refine_rounds belongs to method rqkmeans"),
        ({"ema": False, "revive_after": 3}, "revive_after re-seeds EMA codebooks"),
    ):
        with pytest.raises(StageError, match=message):
            validate_section("tokenize", TokenizeParams, values, "params.yaml")


def test_contrastive_training_sees_no_held_out_interaction(project):
    """Pairs that stand only in the test split change nothing."""
    first = run(project, contrastive_weight=0.5)
    path = project / "data/ingest/interactions.parquet"
    table = pl.read_parquet(path)
    held = table.head(40).with_columns(split=pl.lit("test"), user=pl.lit(99, dtype=pl.Int32))
    pl.concat([table, held]).write_parquet(path)
    assert run(project, contrastive_weight=0.5)["codebooks.safetensors"] == first["codebooks.safetensors"]
