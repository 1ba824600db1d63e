"""The model before its first step, the rows it will read, and the whole stage in some steps."""

import polars as pl
import pytest
import torch

from stages.midtrain.decoder import LOOK_BACK, NAMING, POINTERS, look_back
from stages.midtrain.midtrain import make_model, midtrain, skill_accuracy, training_rows
from stages.midtrain.params import MidtrainParams
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import training_interactions
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.slates.prompts import PromptParams
from tests.support.small_project import CATALOG, ITEM_COUNT, make_slates, make_tables, write_project
from tests.support.tiny_models import random_prompts, tiny_folder

OPTIONS = PromptParams()
HEADS = LOOK_BACK
SMALL = MidtrainParams(
    threads=1, text_vocabulary=700, hidden=32 * HEADS, heads=HEADS, layers=2, intermediate=64, steps=3, batch_size=4, log_every=1, lr=1e-3
)
WORLD = make_tables(make_slates(), OPTIONS)
BASE = training_interactions(WORLD["data/ingest/interactions.parquet"])
TEXTS = [f"Title {item}" for item in range(ITEM_COUNT)]


def small(**more) -> MidtrainParams:
    return SMALL.model_copy(update=more)


@pytest.fixture(scope="module")
def made():
    return make_model(SMALL, TEXTS, WORLD["data/tokenize/sids.parquet"])


def test_a_model_from_scratch_fits_its_tokenizer(made):
    model, tokenizer = made
    rows = model.get_input_embeddings().weight.shape[0]
    assert rows % 64 == 0 and 0 <= rows - len(tokenizer) < 64
    assert (model.config.pad_token_id, model.config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    again, _ = make_model(SMALL, TEXTS, WORLD["data/tokenize/sids.parquet"])
    other, _ = make_model(small(seed=8), TEXTS, WORLD["data/tokenize/sids.parquet"])
    pairs = [(name, tensor, again.state_dict()[name], other.state_dict()[name]) for name, tensor in model.state_dict().items()]
    assert all(torch.equal(mine, same) for _, mine, same, _ in pairs)
    assert not any(torch.equal(mine, else_) for name, mine, _, else_ in pairs if name.endswith("embed_tokens.weight"))


def attention(model, ids: list[int], layer: int = 0) -> torch.Tensor:
    """[heads, L, L]."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), output_attentions=True).attentions[layer][0]


def test_each_look_back_head_attends_at_its_own_distance(made):
    model, tokenizer = made
    (ids,) = random_prompts(1, len(tokenizer), 120, 120)
    weights = attention(model, ids)
    for head in range(LOOK_BACK):
        at_offset = weights[head].diagonal(-(head + 1))
        assert float(at_offset[LOOK_BACK:].min()) > 0.9, f"head {head} does not look {head + 1} tokens back"


def copied(seed: int, vocabulary: int) -> list[int]:
    """200 different tokens, but for the last 100, which are the first again."""
    order = torch.randperm(vocabulary - 2, generator=torch.Generator().manual_seed(seed))[:100].add(2).tolist()
    return order + order


def test_the_matching_heads_find_what_stood_in_the_same_place_before(made):
    """A head start, no proof: eighteen dimensions tell hundreds of tokens apart in most cases, not in all."""
    model, tokenizer = made
    weights = torch.stack([attention(model, copied(seed, len(tokenizer)), layer=1) for seed in range(4)])
    for head in range(1 + len(POINTERS)):
        assert float(weights[:, head].diagonal(-99, -2, -1)[:, 5:].mean()) > 0.15, f"head {head} does not find the follower"
    same = weights[:, NAMING].diagonal(-100, -2, -1)
    assert float(same.mean()) > 0.05 > 5 * float(weights[:, NAMING].diagonal(-99, -2, -1).mean())


def test_copying_heads_make_what_they_find_likelier(made):
    model, tokenizer = made
    ids = copied(0, len(tokenizer))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, 105:-1]
    ranks = (logits > logits.gather(1, torch.tensor(ids[106:])[:, None])).sum(1)
    assert float(ranks.float().median()) < len(tokenizer) / 20


@pytest.mark.parametrize("offset", [1, 4, 9])
def test_look_back_works_at_any_distance(offset):
    model, tokenizer = make_model(small(copy_circuit=False), TEXTS, WORLD["data/tokenize/sids.parquet"])
    look_back(model, 2, offset)
    (ids,) = random_prompts(1, len(tokenizer), 60, 60)
    assert float(attention(model, ids)[2].diagonal(-offset).min()) > 0.9


def test_without_the_circuit_no_head_looks_back():
    model, tokenizer = make_model(small(copy_circuit=False), TEXTS, WORLD["data/tokenize/sids.parquet"])
    (ids,) = random_prompts(1, len(tokenizer), 60, 60)
    assert float(attention(model, ids)[0].diagonal(-1)[5:].max()) < 0.9


@pytest.mark.parametrize("change", [{"heads": LOOK_BACK - 1}, {"layers": 1}])
def test_a_model_too_small_for_the_circuit(change):
    with pytest.raises(StageError, match=r"midtrain\.copy_circuit takes \d heads and 2 layers at least"):
        make_model(small(**change), TEXTS, WORLD["data/tokenize/sids.parquet"])
    assert make_model(small(copy_circuit=False, **change), TEXTS, WORLD["data/tokenize/sids.parquet"])


def test_a_vocabulary_too_small_for_the_layout():
    with pytest.raises(StageError, match=r"midtrain\.text_vocabulary is too small"):
        make_model(small(text_vocabulary=280), TEXTS, WORLD["data/tokenize/sids.parquet"])


def test_near_levels_start_near(made):
    model, tokenizer = made
    weight = model.get_input_embeddings().weight.detach()
    rows = torch.stack([weight[tokenizer.encode(f" co{level}", add_special_tokens=False)[0]] for level in range(10)])
    near = (rows[1:] - rows[:-1]).norm(dim=1).mean()
    assert near < 0.7 * (rows[0] - rows[9]).norm()


def test_a_given_folder_keeps_its_weights_and_gains_the_sids(tmp_path):
    folder = tiny_folder(tmp_path / "given", tied=False)
    before = load_model(folder)
    codes = WORLD["data/tokenize/sids.parquet"].with_columns(codes=pl.lit([0, 0, 0, 200], dtype=pl.List(pl.Int32)))
    model, tokenizer = make_model(small(model=str(folder)), TEXTS, codes)
    known = len(load_tokenizer(folder))
    assert len(tokenizer) == known + 4 * (201 - 8)
    (ids,) = random_prompts(1, known, 30, 30)
    with torch.no_grad():
        logits = (owner(input_ids=torch.tensor([ids])).logits[..., :known] for owner in (before, model))
        assert torch.allclose(*logits, atol=1e-5)


def rows_of(made, **more):
    return training_rows(small(**more), OPTIONS, CATALOG, BASE, made[1])


SHARES = ("sequence_share", "caption_share", "ordering_share", "reading_share", "skill_share")


def test_as_many_rows_as_the_run_takes_none_longer_than_a_row(made):
    params = {"steps": 10, "batch_size": 4, "accumulate": 2, "processes": 2}
    rows = rows_of(made, **params, **dict.fromkeys(SHARES, 0.2))
    assert len(rows) == 160 and max(len(row.ids) for row in rows) <= SMALL.row_length
    assert all(row.weights[0] == 0 and sum(row.weights) > 0 and len(row.ids) == len(row.weights) for row in rows)


def test_each_task_has_its_share_and_the_full_layout_comes_last(made):
    tokenizer = made[1]
    shares = dict(zip(SHARES, (0.1, 0.2, 0.1, 0.1, 0.5), strict=True))
    texts = [tokenizer.decode(row.ids) for row in rows_of(made, steps=10, **shares)]
    kinds = []
    for text in texts:
        full = " taste:" in text
        short = (
            "ordering"
            if "</think>" in text
            else "reading"
            if " match:" in text
            else "caption"
            if "item:" in text or "title:" in text
            else ""
        )
        kinds.append("skill" if full else short or "sequence")
    assert {kind: kinds.count(kind) for kind in kinds} == {"sequence": 4, "caption": 8, "ordering": 4, "reading": 4, "skill": 20}
    assert kinds[20:] == ["skill"] * 20 and len(set(kinds[:10])) > 1, "the short ones are mixed"


def test_the_answer_of_a_full_document_is_never_cut_off(made):
    rows = rows_of(made, steps=5, **{**dict.fromkeys(SHARES, 0.0), "skill_share": 1.0})
    assert all(made[1].decode(row.ids).endswith("<|end|>") for row in rows)


def test_rows_repeat_by_seed(made):
    shares = dict.fromkeys(SHARES, 0.2)
    assert rows_of(made, **shares) == rows_of(made, **shares) != rows_of(made, seed=9, **shares)


def test_no_share_at_all(made):
    with pytest.raises(StageError, match="all shares are 0"):
        rows_of(made, **dict.fromkeys(SHARES, 0.0))


def test_rows_longer_than_the_model_reads(made):
    with pytest.raises(StageError, match=r"midtrain\.max_length 128 is less than the longest row"):
        rows_of(made, max_length=128)


def test_accuracy_counts_the_answers_tokens(made):
    model, tokenizer = made
    assert 0 <= skill_accuracy(model, tokenizer, CATALOG, OPTIONS, 0) < 0.5, "an untrained model guesses"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("prompt: {}\n")
    write_project(tmp_path)
    return tmp_path


def run(project, params: MidtrainParams = SMALL) -> dict[str, bytes]:
    with stage_outputs("midtrain") as outputs:
        midtrain(params, outputs)
    folder = project / "data/midtrain"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_stage_writes_a_model_and_repeats_its_bytes(project):
    first = run(project)
    assert first == run(project)
    assert {"loss.csv", "metrics.json", "model/config.json", "model/model.safetensors", "model/tokenizer.json"} <= set(first)
    metrics = read_json(project / "data/midtrain/metrics.json")
    assert metrics["rows"] == pytest.approx(12, abs=6) and metrics["leak_check"]["overlap"] == 0
    assert len(first["loss.csv"].splitlines()) == 4
    model, tokenizer = load_model(project / "data/midtrain/model"), load_tokenizer(project / "data/midtrain/model")
    assert model.num_parameters() == metrics["parameters"] and len(tokenizer) == metrics["vocabulary"]


def test_nothing_but_base_is_learnt(project):
    """Other items in every later split: the same bytes."""
    first = run(project)
    table = WORLD["data/ingest/interactions.parquet"]
    taken = table.filter(pl.col("split") == "base").group_by("user").agg("item").sort("user")["item"].to_list()
    free = [(user, item) for user, own in enumerate(taken) for item in (set(range(ITEM_COUNT)) - set(own))]
    rows = {user: iter([item for owner, item in free if owner == user]) for user in range(len(taken))}
    items = [item if split == "base" else next(rows[user]) for user, item, split in table.select("user", "item", "split").iter_rows()]
    changed = table.with_columns(item=pl.Series(items, dtype=pl.Int32))
    assert not changed.equals(table)
    write_project(project, {"data/ingest/interactions.parquet": changed})
    second = run(project)
    assert second["model/model.safetensors"] == first["model/model.safetensors"]
