import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from stages.report.report import read_curve
from stages.sft.params import SftParams
from stages.sft.rows import held_out_users, pairs_seen, trace_examples, training_rows
from stages.sft.sft import sft
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.lm.encoding import mixed
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.slates.layouts.compact import CompactLayout
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.training.lora import sid_and_layout_ids
from stages.shared.training.params import LoraSection
from tests.support.small_project import CATALOG, SPLITS, make_slates, make_tables, own_items, write_project
from tests.support.tiny_models import tiny_folder, tiny_tokenizer

SMALL = SftParams(threads=1, steps=40, batch_size=2, lr=1e-3, log_every=5, reasoning_weight=0.5, answer_weight=0.8)
SLATES = make_slates()
WORLD = make_tables(SLATES, PromptParams())
TRACES = WORLD["data/traces/traces.parquet"]
TOKENIZER = tiny_tokenizer()


def small(**more) -> SftParams:
    return SMALL.model_copy(update=more)


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def test_prompt_trace_and_answer_have_their_weights():
    for row, example in enumerate(trace_examples(TRACES, TOKENIZER, SMALL, reasoning=True)):
        prompt, trace, answer = TRACES.select("prompt", "trace", "answer").row(row)
        lengths = [len(ids_of(prompt)), len(ids_of(trace)), len(ids_of(THINK_END + answer))]
        assert example.ids == ids_of(prompt + trace + THINK_END + answer)
        assert example.weights == [0.0] * lengths[0] + [0.5] * lengths[1] + [0.8] * lengths[2]


def test_a_trace_of_less_weight_counts_less():
    own = [0.25 if row % 2 else 1.0 for row in range(TRACES.height)]
    weighed = trace_examples(TRACES.with_columns(weight=pl.Series(own, dtype=pl.Float32)), TOKENIZER, SMALL, reasoning=True)
    for plain, example, weight in zip(trace_examples(TRACES, TOKENIZER, SMALL, reasoning=True), weighed, own, strict=True):
        assert example.ids == plain.ids and example.weights == pytest.approx([weight * value for value in plain.weights])


@pytest.mark.parametrize("answer", ["letters", "sids"])
@pytest.mark.parametrize("reasoning", [True, False])
def test_an_example_reads_as_the_order_it_teaches(answer, reasoning):
    options = PromptParams(answer=answer, reasoning=reasoning)
    traces = make_tables(SLATES, options)["data/traces/traces.parquet"]
    encoded = EncodedLayout(CompactLayout(CATALOG, options), TOKENIZER)
    for row, example in enumerate(trace_examples(traces, TOKENIZER, SMALL, reasoning)[:20]):
        start = len(ids_of(traces["prompt"][row]))
        [names] = encoded.names([SLATES[row]])
        assert encoded.reader.read(example.ids[start:], names, reasoning).order == tuple(traces["order"][row])
        if not reasoning:
            assert example.weights == [0.0] * start + [0.8] * (len(example.ids) - start), "no trace, an answer at once"


@pytest.mark.parametrize("reasoning", [True, False])
def test_traces_of_the_other_kind_are_an_error(reasoning):
    traces = make_tables(SLATES, PromptParams(reasoning=reasoning))["data/traces/traces.parquet"]
    with pytest.raises(StageError, match=r"data/traces/traces\.parquet: its prompts were written with prompt\.reasoning .* gr2 run traces"):
        trace_examples(traces, TOKENIZER, SMALL, not reasoning)


def rows_of(examples, reasoning=True, **more):
    layout = CompactLayout(CATALOG, PromptParams(reasoning=reasoning))
    return training_rows(examples, small(**more), layout, len(CATALOG.sids), 4, TOKENIZER)


def test_epochs_hold_every_example_once_in_an_order_of_their_own():
    examples = trace_examples(TRACES[:10], TOKENIZER, SMALL, reasoning=True)
    rows = rows_of(examples, steps=2, batch_size=5, accumulate=2, processes=2, practice_share=0.0)["traces"]
    assert len(rows) == 40
    epochs = [[id(row) for row in rows[start : start + 10]] for start in (0, 10, 20, 30)]
    assert all(sorted(epoch) == sorted(map(id, examples)) for epoch in epochs) and epochs[0] != epochs[1]
    assert rows_of(examples, seed=8) != rows_of(examples) == rows_of(examples)


def test_practice_has_its_share_of_the_rows_and_is_packed_as_long_as_a_trace():
    examples = trace_examples(TRACES[:10], TOKENIZER, SMALL, reasoning=True)
    rows = rows_of(examples, steps=10, batch_size=4, practice_share=0.25)
    longest = max(len(example.ids) for example in examples)
    assert {kind: len(kind_rows) for kind, kind_rows in rows.items()} == {"traces": 30, "practice": 10}
    assert all(longest / 2 < len(row.ids) <= longest and len(row.starts) > 1 for row in rows["practice"])
    assert len(rows_of(examples, reasoning=False, steps=10, batch_size=4, practice_share=0.25)["practice"]) == 0
    every = [id(row) for kind_rows in rows.values() for row in kind_rows]
    order = [id(row) for row in mixed(rows, 7)]
    assert sorted(order) == sorted(every) and order != every


def test_pairs_seen_are_the_history_and_the_target_of_the_slates_taught():
    seen = set(pairs_seen(TRACES.filter(pl.col("slate") == 4), WORLD["data/retrieve/slates.parquet"]).iter_rows())
    slate = SLATES[4]
    assert seen == {(slate.user, item) for item in [*slate.history, slate.candidates[slate.target_rank]]}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("prompt: {}\n")
    write_project(tmp_path, WORLD)
    tiny_folder(tmp_path / "data/midtrain/model")
    return tmp_path


def run(project, params: SftParams = SMALL) -> dict[str, bytes]:
    with stage_outputs("sft") as outputs:
        sft(params, outputs)
    folder = project / "data/sft"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_model_learns_and_keeps_its_vocabulary(project):
    run(project)
    metrics = read_json(project / "data/sft/metrics.json")
    assert metrics["steps"] == 40 and metrics["rows"] == {"traces": 64, "practice": 16} and metrics["reasoning"] is True
    assert metrics["loss"]["last"] < metrics["loss"]["first"]
    model, tokenizer = load_model(project / "data/sft/model"), load_tokenizer(project / "data/sft/model")
    assert tokenizer.get_vocab() == load_tokenizer(project / "data/midtrain/model").get_vocab()
    assert model.config.vocab_size == load_model(project / "data/midtrain/model").config.vocab_size


def test_adapters_are_merged_and_the_rows_of_sids_learn(project):
    run(project, small(steps=3, lora=LoraSection(rank=2, targets=["q_proj"])))
    before, after = (load_file(project / f"data/{stage}/model/model.safetensors") for stage in ("midtrain", "sft"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.embed_tokens.weight", *(f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1))}
    rows = (before["model.embed_tokens.weight"] - after["model.embed_tokens.weight"]).abs().sum(dim=1).nonzero()[:, 0]
    assert rows.tolist() == sid_and_layout_ids(TOKENIZER)


def test_validation_holds_whole_users_out(project):
    params = small(steps=4, log_every=2, validate_steps=2, validate_share=0.1)
    held_out = held_out_users(TRACES, params)
    assert len(held_out) == 6 and held_out_users(TRACES, small()) == []
    run(project, params)
    metrics = read_json(project / "data/sft/metrics.json")
    expected = TRACES.filter(pl.col("user").is_in(held_out)).height
    assert metrics["validation"]["rows"] == expected == 18 and metrics["validation"]["best_step"] in (2, 4)
    header, *rows = (project / "data/sft/loss.csv").read_text().splitlines()
    assert header == "step,loss,lr,validation" and [bool(row.split(",")[3]) for row in rows] == [False, True, True]
    assert [len(row) for row in read_curve(project / "data/sft/loss.csv")] == [3, 4, 4], "the report reads it"


def test_validation_that_leaves_no_user():
    with pytest.raises(StageError, match=r"sft\.validate_share: 0\.999 of the 60 users .* lower it"):
        held_out_users(TRACES, small(validate_steps=1, validate_share=0.999))


def test_without_reasoning(project):
    (project / "params.yaml").write_text("prompt: {reasoning: false}\n")
    write_project(project, make_tables(SLATES, PromptParams(reasoning=False)))
    run(project)
    metrics = read_json(project / "data/sft/metrics.json")
    assert metrics["rows"] == {"traces": 80, "practice": 0} and metrics["reasoning"] is False
    assert metrics["loss"]["last"] < metrics["loss"]["first"]


def test_same_seed_same_bytes(project):
    params = small(steps=3)
    assert run(project, params) == run(project, params)


@pytest.mark.parametrize("change", [{"reasoning_weight": 0.1}, {"answer_weight": 3.0}, {"seed": 1}, {"optimizer": "muon"}])
def test_parameters_change_the_model(project, change):
    params = small(steps=2)
    assert run(project, params)["model/model.safetensors"] != run(project, params.model_copy(update=change))["model/model.safetensors"]


def planted(kind: str, split: str) -> dict[str, pl.DataFrame]:
    """The same project, but user 0's first slate has a held-out item as its target or in its history."""
    item = own_items(0)[SPLITS.index(split)]
    slates = WORLD["data/retrieve/slates.parquet"]
    first = pl.col("slate") == 0
    if kind == "target":
        slates = slates.with_columns(target=pl.when(first).then(pl.lit(item, dtype=pl.Int32)).otherwise("target"))
    else:
        longer = pl.concat_list("history", pl.lit([item], dtype=pl.List(pl.Int32)))
        slates = slates.with_columns(history=pl.when(first).then(longer).otherwise("history"))
    return {**WORLD, "data/retrieve/slates.parquet": slates}


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("kind", ["target", "history"])
def test_a_trace_of_a_held_out_item_is_a_leak(project, kind, split):
    write_project(project, planted(kind, split))
    with pytest.raises(StageError, match=rf"leak in sft: 1 held-out .* user 0, item \d+, split {split}"):
        run(project)
    assert not (project / "data/sft").exists()


def test_a_slate_that_no_trace_teaches_may_hold_anything(project):
    """Test slates are in the same table: they are no leak as long as no trace is made of them."""
    tables = planted("target", "test")
    tables["data/traces/traces.parquet"] = TRACES.filter(pl.col("slate") != 0)
    write_project(project, tables)
    run(project, small(steps=1))
    assert read_json(project / "data/sft/metrics.json")["leak_check"]["overlap"] == 0


def test_no_model_to_start_from(project):
    (project / "data/midtrain/model/tokenizer.json").unlink()
    (project / "data/midtrain/model/tokenizer_config.json").unlink()
    with pytest.raises(StageError, match=r"data/midtrain/model: not a Hugging Face model folder .*gr2 run midtrain"):
        run(project)
