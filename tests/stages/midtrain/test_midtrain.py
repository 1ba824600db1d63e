"""The model before its first step, the rows it will read, and the whole stage in some steps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.midtrain.documents import CompactWording
from stages.midtrain.midtrain import make_model, midtrain
from stages.midtrain.mixture import apportioned, held_out_rows, make_mixture
from stages.midtrain.new_rows import ItemCodes
from stages.midtrain.params import MidtrainParams
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import training_interactions
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.lm.encoding import mixed
from stages.shared.lm.models import load_model, load_tokenizer, save_model
from stages.shared.lm.packaged import packaged_model
from stages.shared.slates.layouts.compact import CompactLayout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.training.checkpoints import KeepNewest
from stages.shared.training.lora import sid_and_layout_ids
from stages.shared.training.params import LoraSection
from tests.support.chat_models import tiny_qwen3
from tests.support.small_project import CATALOG, CODES, ITEM_COUNT, make_slates, make_tables, write_project
from tests.support.tiny_models import random_prompts, tiny_folder

OPTIONS = PromptParams()
LAYOUT = CompactLayout(CATALOG, OPTIONS)
SMALL = MidtrainParams(
    threads=1,
    text_vocabulary=700,
    hidden=64,
    heads=2,
    layers=2,
    intermediate=64,
    steps=3,
    batch_size=4,
    log_every=1,
    lr=1e-3,
    probe_users=8,
)
WORLD = make_tables(make_slates(), OPTIONS)
BASE = training_interactions(WORLD["data/ingest/interactions.parquet"])
ITEM_CODES = ItemCodes(CATALOG, np.array(CODES), Path("no such file"))
PARAGRAPHS = [f"Paragraph {number} says little, and says it in {number} words." for number in range(30)]
TEXTS = [f"Title {item}" for item in range(ITEM_COUNT)]


def small(**more) -> MidtrainParams:
    return SMALL.model_copy(update=more)


@pytest.fixture(scope="module")
def made():
    return make_model(SMALL, TEXTS, ITEM_CODES, LAYOUT)


def test_a_model_from_scratch_fits_its_tokenizer(made):
    model, tokenizer, new_ids = made
    assert new_ids == []
    rows = model.get_input_embeddings().weight.shape[0]
    assert rows % 64 == 0 and 0 <= rows - len(tokenizer) < 64
    assert (model.config.pad_token_id, model.config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    again, *_ = make_model(SMALL, TEXTS, ITEM_CODES, LAYOUT)
    other, *_ = make_model(small(seed=8), TEXTS, ITEM_CODES, LAYOUT)
    pairs = [(name, tensor, again.state_dict()[name], other.state_dict()[name]) for name, tensor in model.state_dict().items()]
    assert all(torch.equal(mine, same) for _, mine, same, _ in pairs)
    assert not any(torch.equal(mine, else_) for name, mine, _, else_ in pairs if name.endswith("embed_tokens.weight"))


def test_the_initialisation_is_the_published_one(made):
    """Qwen2: matrices and embeddings normal around 0 with initializer_range, biases 0, norms 1."""
    model, *_ = made
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif weight.dim() == 1:
            assert (weight == 1).all(), name
        else:
            drawn = weight[weight.any(dim=1)]  # the padding row of the embedding is zero
            assert float(drawn.mean()) == pytest.approx(0, abs=2e-3) and float(drawn.std()) == pytest.approx(SMALL.init_std, rel=0.1), name


def test_a_given_folder_keeps_its_weights_and_gains_the_sids(tmp_path):
    folder = tiny_folder(tmp_path / "given", tied=False)
    before = load_model(folder)
    codes = replace(ITEM_CODES, codes_NL=np.full((ITEM_COUNT, 4), [0, 0, 0, 200]))
    model, tokenizer, new_ids = make_model(small(model=str(folder)), TEXTS, codes, LAYOUT)
    known = len(load_tokenizer(folder))
    assert new_ids == list(range(known, len(tokenizer)))
    assert len(tokenizer) == known + 4 * (201 - 8)
    (ids,) = random_prompts(1, known, 30, 30)
    with torch.no_grad():
        logits = (owner(input_ids=torch.tensor([ids])).logits[..., :known] for owner in (before, model))
        assert torch.allclose(*logits, atol=1e-5)


def rows_of(made, **more):
    return make_mixture(small(**more), LAYOUT, CompactWording(CATALOG), BASE, made[1], PARAGRAPHS).rows


SHARES = ("sequence_share", "caption_share", "preference_share", "sorting_share", "judging_share")


def test_as_many_rows_as_the_run_takes_none_longer_than_a_row(made):
    params = {"steps": 10, "batch_size": 4, "accumulate": 2, "processes": 2}
    rows = mixed(rows_of(made, **params, **dict.fromkeys(SHARES, 0.2)), 7)
    assert len(rows) == 160 and max(len(row.ids) for row in rows) <= SMALL.row_length
    assert all(row.weights[0] == 0 and sum(row.weights) > 0 and len(row.ids) == len(row.weights) for row in rows)


def test_each_task_has_its_share_of_rows_and_shares_need_not_sum_to_one(made):
    shares = dict(zip(SHARES, (0.2, 0.4, 0.2, 0.2, 1.0), strict=True))
    rows = rows_of(made, steps=10, **shares)
    assert {task: len(task_rows) for task, task_rows in rows.items()} == {
        "sequence": 4, "caption": 8, "preference": 4, "sorting": 4, "judging": 20,
    }  # fmt: skip
    marks = {"sequence": "history:", "caption": "t", "preference": "text:", "sorting": " match:", "judging": " match: A co"}
    assert all(marks[task] in made[1].decode(row.ids) for task, task_rows in rows.items() for row in task_rows)
    every = [row for task_rows in rows.values() for row in task_rows]
    assert sorted(map(id, mixed(rows, 7))) == sorted(map(id, every)) and mixed(rows, 7) != mixed(rows, 8)


def test_personas_and_replayed_text_come_on_request_and_change_no_other_row(made):
    shares = dict.fromkeys(SHARES, 0.2)
    plain, more = rows_of(made, steps=5, **shares), rows_of(made, steps=5, **shares, persona_share=0.6, replay_share=0.4)
    assert {task: len(task_rows) for task, task_rows in more.items()} == dict.fromkeys(plain, 2) | {"persona": 6, "replay": 4}
    assert more["sequence"] == plain["sequence"][:2]
    read = "".join(made[1].decode(row.ids) for row in more["replay"])
    assert read and all(sentence + "." in PARAGRAPHS for sentence in read.split(".")[:-1] if sentence)


def test_the_answer_of_a_full_document_is_never_cut_off(made):
    rows = rows_of(made, steps=5, **{**dict.fromkeys(SHARES, 0.0), "judging_share": 1.0})
    assert all(made[1].decode(row.ids).endswith("<|end|>") for row in rows["judging"])


def test_few_rows_are_as_many_as_the_steps_need(made):
    """Plain rounding gave 81 of 80, and 3 of 4."""
    default = dict(zip(SHARES, (0.1, 0.05, 0.02, 0.22, 0.61), strict=True))
    for steps, batch_size in ((20, 4), (4, 1), (1, 1), (7, 3)):
        assert len(mixed(rows_of(made, steps=steps, batch_size=batch_size, **default), 7)) == steps * batch_size
    assert apportioned(list(default.values()), 12_800) == [1280, 640, 256, 2816, 7808], "the default profile's, as they were"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7).filter(lambda shares: sum(shares) > 1e-3), st.integers(0, 500))
def test_shares_are_apportioned_to_less_than_a_row(shares, total):
    counts = apportioned(shares, total)
    assert sum(counts) == total and all(abs(count - share / sum(shares) * total) < 1 for count, share in zip(counts, shares, strict=True))


JUDGING_ALONE = {**dict.fromkeys(SHARES, 0.0), "judging_share": 1.0}


def mixture_of(made, **more):
    return make_mixture(small(**more), LAYOUT, CompactWording(CATALOG), BASE, made[1], PARAGRAPHS)


def test_no_slate_is_trained_on_whose_answer_was_cut(made, capsys):
    kept = mixture_of(made, steps=20, row_length=128, cut_slates="keep", **JUDGING_ALONE)
    assert kept.cut["judging"] > 0 and not kept.too_long
    assert not all(made[1].decode(row.ids).endswith("<|end|>") for row in kept.rows["judging"])
    kept.tell_cuts(small(row_length=128, cut_slates="keep"))
    assert not capsys.readouterr().out, "who asks to keep them need not be told"
    dropped = mixture_of(made, steps=20, row_length=128, cut_slates="drop", **JUDGING_ALONE)
    assert len(dropped.rows["judging"]) == 80 and not dropped.cut and min(dropped.too_long) > 128
    assert all(made[1].decode(row.ids).endswith("<|end|>") for row in dropped.rows["judging"])
    dropped.tell_cuts(small(row_length=128))
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and f"{len(dropped.too_long)} judging slates were left out" in told
    assert f"With row_length: {max(dropped.too_long)} all of them fit" in told
    assert not mixture_of(made, steps=20, row_length=max(dropped.too_long), **JUDGING_ALONE).too_long


def test_other_documents_that_were_cut_are_counted_by_task(made, capsys):
    params = {"steps": 20, "row_length": 64, "cut_slates": "keep", **dict.fromkeys((*SHARES, "replay_share", "persona_share"), 0.2)}
    long_text = ["words " * 60]
    mixture = make_mixture(small(**params), LAYOUT, CompactWording(CATALOG), BASE, made[1], long_text)
    assert mixture.cut["replay"] == len(mixture.rows["replay"]) and mixture.cut["persona"] > 0
    assert "sorting" not in mixture.cut and "caption" not in mixture.cut
    mixture.tell_cuts(small(**params))
    told = capsys.readouterr().out
    assert f"{mixture.cut['persona']} of persona lost their end" in told and "replay" not in told and "judging" not in told


@pytest.mark.parametrize("task", ["judging", "persona"])
def test_nothing_of_a_task_fits_into_a_row(made, monkeypatch, task):
    def long_documents(*args):
        while True:
            yield [("history: " * 90, 0.0), (" A", 1.0)]

    monkeypatch.setattr(f"stages.midtrain.mixture.{'practice' if task == 'judging' else 'documents'}.{task}_documents", long_documents)
    wanted = rf"midtrain\.row_length: 64 leaves nothing to learn of {task}, whose documents here have \d+ tokens .* {task}_share: 0"
    with pytest.raises(StageError, match=wanted):
        mixture_of(made, row_length=64, **{**dict.fromkeys(SHARES, 0.0), f"{task}_share": 1.0})


def test_rows_repeat_by_seed(made):
    shares = dict.fromkeys(SHARES, 0.2)
    assert rows_of(made, **shares) == rows_of(made, **shares) != rows_of(made, seed=9, **shares)


def test_no_share_at_all(made):
    with pytest.raises(StageError, match="all shares are 0"):
        rows_of(made, **dict.fromkeys(SHARES, 0.0))


def test_rows_longer_than_the_model_reads(made):
    with pytest.raises(StageError, match=r"midtrain\.max_length 128 is less than the longest row"):
        rows_of(made, max_length=128)


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
    assert metrics["rows"] == 12 and metrics["cut"] == {} and metrics["dropped"] == 0 and metrics["leak_check"]["overlap"] == 0
    assert len(first["loss.csv"].splitlines()) == 4
    model, tokenizer = load_model(project / "data/midtrain/model"), load_tokenizer(project / "data/midtrain/model")
    assert set(metrics["tokens"]) == {"sequence", "caption", "preference", "sorting", "judging"} and min(metrics["tokens"].values()) > 0
    assert metrics["probes"]["next_item"]["users"] == 8 and 0 <= metrics["probes"]["quoting"] <= 1
    assert model.num_parameters() == metrics["parameters"] and len(tokenizer) == metrics["vocabulary"]


def test_adapters_on_a_given_model(project):
    """The new rows learn, the rows of the model's own words stay."""
    given = tiny_folder(project / "given")
    (project / "text.txt").write_text("\n".join(PARAGRAPHS))
    run(project, small(model=str(given), text=str(project / "text.txt"), lora=LoraSection(rank=2)))
    before, after = (load_model(folder).get_input_embeddings().weight for folder in (given, project / "data/midtrain/model"))
    tokenizer = load_tokenizer(project / "data/midtrain/model")
    rows = (before - after[: len(before)]).abs().sum(dim=1).nonzero()[:, 0].tolist()
    assert rows and rows == [index for index in sid_and_layout_ids(tokenizer) if index < len(before)]


def test_adapters_need_a_model(project):
    with pytest.raises(StageError, match=r"midtrain\.lora: adapters are for a pretrained model"):
        run(project, small(lora=LoraSection(rank=2)))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_was_stopped_writes_the_bytes_of_one_that_was_not(project, monkeypatch, optimizer):
    undisturbed = run(project, small(optimizer=optimizer))

    class Stop(KeepNewest):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise InterruptedError

    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr("stages.shared.training.trainer.KeepNewest", Stop)
        run(project, small(optimizer=optimizer, save_steps=2))
    assert len(list(project.glob(".gr2/resume/midtrain/*/checkpoint-2"))) == 1
    assert run(project, small(optimizer=optimizer, save_steps=2)) == undisturbed
    assert not list(project.glob(".gr2/resume/*"))


def test_a_pretrained_model_in_dialogues_keeps_its_text_measured(project):
    """A random Qwen3 with SmolLM2's tokenizer and template, all tasks, its new rows at their own rate."""
    (project / "params.yaml").write_text("prompt: {layout: chat, titles: true, history: 2}\n")
    (project / "text.txt").write_text("\n".join(PARAGRAPHS))
    tokenizer = load_tokenizer(packaged_model("smollm2-135m"))
    save_model(tiny_qwen3(tokenizer, hidden=16), tokenizer, project / "given")
    shares = dict.fromkeys((*SHARES, "persona_share", "replay_share"), 1.0)
    more = {
        "row_length": 1024,
        "new_rows": "random",
        "batch_size": 1,
        "steps": 7,
        "new_rows_lr": 1e-2,
        "probe_documents": 2,
        "probe_users": 4,
    }
    more |= shares
    params = small(model=str(project / "given"), text=str(project / "text.txt"), **more)
    run(project, params)
    metrics = read_json(project / "data/midtrain/metrics.json")
    assert set(metrics["tokens"]) == {"sequence", "caption", "preference", "sorting", "judging", "persona", "replay"}
    text = metrics["text"]
    assert text["before"]["perplexity"] < text["extended"]["perplexity"] and text["after"]["bits_per_byte"] > 0
    assert metrics["probes"]["next_item"]["free_valid"] == 0 and metrics["probes"]["sid_to_title_exact"] == 0


def test_validation_is_on_rows_of_its_own(project, made, monkeypatch):
    monkeypatch.setattr("stages.midtrain.mixture.VALIDATION_ROWS", 12)
    run(project, small(steps=4, validate_steps=2, probe_users=0))
    metrics = read_json(project / "data/midtrain/metrics.json")
    assert 8 <= metrics["validation"]["rows"] <= 14 and metrics["validation"]["best_step"] in (2, 4)
    later = WORLD["data/ingest/interactions.parquet"].filter(pl.col("split") == "train")
    held_out = held_out_rows(SMALL, LAYOUT, CompactWording(CATALOG), later, BASE, made[1], PARAGRAPHS)
    trained = {tuple(row.ids) for task, rows in rows_of(made).items() if task != "caption" for row in rows}
    assert held_out and not trained & {tuple(row.ids) for row in held_out}


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
