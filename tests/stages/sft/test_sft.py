import polars as pl
import pytest

from stages.sft.params import SftParams
from stages.sft.sft import direct_examples, mean_tokens, order_of_epochs, pairs_seen, reasoning_examples, sft
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.slates.answers import AnswerReader
from stages.shared.slates.prompts import ASSISTANT, END, THINK, THINK_END, PromptParams
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


def candidates(row: int) -> list[list[int]]:
    return [ids_of(CATALOG.sids[item]) for item in SLATES[row].candidates]


def test_prompt_trace_and_answer_have_their_weights():
    for row, example in enumerate(reasoning_examples(TRACES, TOKENIZER, SMALL)):
        prompt, trace, answer = TRACES.select("prompt", "trace", "answer").row(row)
        lengths = [len(ids_of(prompt)), len(ids_of(trace)), len(ids_of(THINK_END + answer))]
        assert example.ids == ids_of(prompt + trace + THINK_END + answer)
        assert example.weights == [0.0] * lengths[0] + [0.5] * lengths[1] + [0.8] * lengths[2]


def test_a_reasoning_example_reads_as_the_order_it_teaches():
    reader = AnswerReader(TOKENIZER)
    for row, example in enumerate(reasoning_examples(TRACES, TOKENIZER, SMALL)[:20]):
        completion = example.ids[len(ids_of(TRACES["prompt"][row])) :]
        assert reader.read(completion, candidates(row)).order == tuple(TRACES["order"][row])


def test_an_example_without_reasoning_is_bare_and_teaches_the_same_order():
    reader = AnswerReader(TOKENIZER)
    for row, example in enumerate(direct_examples(TRACES, TOKENIZER, SMALL)[:20]):
        prompt, answer = TOKENIZER.decode(example.ids).split(ASSISTANT)
        assert prompt == TRACES["prompt"][row].split(ASSISTANT)[0]
        bare = "".join(CATALOG.sids[SLATES[row].candidates[rank]] for rank in TRACES["order"][row])
        assert answer == THINK + THINK_END + bare + END, "no relevances, no letters"
        start = len(ids_of(prompt + ASSISTANT + THINK + THINK_END))
        assert example.weights == [0.0] * start + [0.8] * (len(example.ids) - start)
        assert reader.read(example.ids[start:], candidates(row), reasoning=False).order == tuple(TRACES["order"][row])


def test_epochs_hold_every_example_once_in_an_order_of_their_own():
    examples = reasoning_examples(TRACES[:10], TOKENIZER, SMALL)
    rows = order_of_epochs(examples, small(batch_size=5, accumulate=2, processes=2), 2)
    assert len(rows) == 40
    epochs = [[id(row) for row in rows[start : start + 10]] for start in (0, 10, 20, 30)]
    assert all(sorted(epoch) == sorted(map(id, examples)) for epoch in epochs) and epochs[0] != epochs[1]
    assert order_of_epochs(examples, small(seed=8), 5) != order_of_epochs(examples, SMALL, 5) == order_of_epochs(examples, SMALL, 5)
    assert len(order_of_epochs(examples, SMALL, 1)) == 2


def test_pairs_seen_are_the_history_and_the_target_of_the_slates_taught():
    seen = set(pairs_seen(TRACES.filter(pl.col("slate") == 4), WORLD["data/retrieve/slates.parquet"]).iter_rows())
    slate = SLATES[4]
    assert seen == {(slate.user, item) for item in [*slate.history, slate.candidates[slate.target_rank]]}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, WORLD)
    tiny_folder(tmp_path / "data/midtrain/model")
    return tmp_path


def run(project, params: SftParams = SMALL) -> dict[str, bytes]:
    with stage_outputs("sft") as outputs:
        sft(params, outputs)
    folder = project / "data/sft"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_both_arms_learn_on_as_many_tokens(project):
    run(project)
    metrics = read_json(project / "data/sft/metrics.json")
    assert metrics["no_reasoning"]["tokens"] == pytest.approx(metrics["model"]["tokens"], rel=0.02)
    shorter = mean_tokens(direct_examples(TRACES, TOKENIZER, SMALL)) / mean_tokens(reasoning_examples(TRACES, TOKENIZER, SMALL))
    assert metrics["no_reasoning"]["steps"] == round(40 / shorter) > 40
    for arm in ("model", "no_reasoning"):
        assert metrics[arm]["loss_last"] < metrics[arm]["loss_first"]
        model, tokenizer = load_model(project / "data/sft" / arm), load_tokenizer(project / "data/sft" / arm)
        assert tokenizer.get_vocab() == load_tokenizer(project / "data/midtrain/model").get_vocab()
        assert model.config.vocab_size == load_model(project / "data/midtrain/model").config.vocab_size


def test_same_seed_same_bytes_and_one_arm_alone_is_the_same_arm(project):
    params = small(steps=3)
    first, second = run(project, params), run(project, params)
    assert first == second
    alone = run(project, params.model_copy(update={"no_reasoning_arm": False}))
    assert alone["model/model.safetensors"] == first["model/model.safetensors"]


@pytest.mark.parametrize("change", [{"reasoning_weight": 0.1}, {"answer_weight": 3.0}, {"seed": 1}, {"optimizer": "muon"}])
def test_parameters_change_the_model(project, change):
    params = small(steps=2, no_reasoning_arm=False)
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
    run(project, small(steps=1, no_reasoning_arm=False))
    assert read_json(project / "data/sft/metrics.json")["leak_check"]["overlap"] == 0


def test_no_model_to_start_from(project):
    (project / "data/midtrain/model/tokenizer.json").unlink()
    (project / "data/midtrain/model/tokenizer_config.json").unlink()
    with pytest.raises(StageError, match=r"data/midtrain/model: not a Hugging Face model folder .*gr2 run midtrain"):
        run(project)
