"""A language model asked in shards: the same bytes however many there are, and the stage itself asks nothing."""

from pathlib import Path

import polars as pl
import pytest

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from stages.shared.generation.base import Completion
from stages.shared.slates.layouts.marks import THINK_END
from stages.traces import traces as stage
from stages.traces.params import SHARDS, TracesParams
from stages.traces.shards import ask_shard
from stages.traces.teachers import open_teacher
from stages.traces.teachers.asking import TokenAsker
from stages.traces.teachers.language_model import LanguageModelTeacher
from stages.traces.teachers.teacher import StatisticalTeacher
from tests.stages.traces.teachers.test_language_model import foreign_tokenizer
from tests.support.traces_data import LAYOUT, make_slates, write_project


class SlateEngine:
    """Says of a prompt's slate what the statistical teacher would say, with the noise of the attempt; it finds the slate by its prompt."""

    def __init__(self, tokenizer):
        self.tokenizer, self.slates, self.asked = tokenizer, {}, []

    def generate(self, prompts, sampling, constraints=None, places=None):
        completions = []
        for ids, place in zip(prompts, places, strict=True):
            text = self.tokenizer.decode(ids, skip_special_tokens=False)
            one = next(one for prompt, one in self.slates.items() if text.endswith(prompt))
            assert one.slate.slate == place
            self.asked.append((place, sampling.seed))
            [proposal] = StatisticalTeacher(LAYOUT, 0.5, sampling.seed, targeted=False).propose([one], 0)
            answer = f"{proposal.trace}{THINK_END}{LAYOUT.answer(one.slate, proposal.order)}"
            ids = self.tokenizer.encode(answer, add_special_tokens=False)
            completions.append([Completion([*ids, self.tokenizer.eos_token_id], [], seconds=0.25)])
        return completions


@pytest.fixture
def engine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, make_slates(per_user=2))
    tokenizer = foreign_tokenizer()
    engine = SlateEngine(tokenizer)
    question = LanguageModelTeacher.question

    def noted(self, scored):
        engine.slates[LAYOUT.prompt(scored.slate)] = scored
        return question(self, scored)

    monkeypatch.setattr(LanguageModelTeacher, "question", noted)

    def asker(params, model, journal, record, stack):
        return TokenAsker(engine, tokenizer, record.invocations, "transformers")

    monkeypatch.setattr(open_teacher, "_open_asker", asker)
    return engine


def params_of(shards: int, **more) -> TracesParams:
    sharded = {"shards": list(range(shards)), "reads": SHARDS} if shards else {}
    values = {"time_folds": 2, "attempts": 3, "keep": 2, "shuffle": False, "scorer": {"rounds": 5, "min_leaf": 5}}
    model = {"language_model": {"keep_invocations": True}}
    return TracesParams.model_validate({"teacher": "language_model", **values, **model, **sharded, **more})


def run(params: TracesParams) -> dict[str, bytes]:
    with stage_outputs("traces") as outputs:
        stage.traces(params, outputs)
    return {path.name: path.read_bytes() for path in Path("data/traces").iterdir()}


def ask(shard: int, params: TracesParams) -> None:
    with stage_outputs(f"traces_shard@{shard}", final=Path(SHARDS) / str(shard)) as outputs:
        ask_shard(shard, params, outputs)


@pytest.mark.parametrize("more", [{}, {"mode": "soft"}, {"verify_shuffles": 2, "verify_share": 0.5}], ids=["rejection", "soft", "verified"])
def test_the_stage_writes_the_same_bytes_however_many_shards(engine, more):
    alone = run(params_of(0, **more))
    asked = sorted(engine.asked)
    assert pl.read_parquet(alone["traces.parquet"]).height > 5 and pl.read_parquet(alone["invocations.parquet"]).height == len(asked)
    for shards in (1, 3):
        engine.asked.clear()
        params = params_of(shards, **more)
        for shard in params.shards:
            ask(shard, params)
        assert sorted(engine.asked) == asked, "every question once, whichever shard asks it"
        assert run(params) == alone
        assert sorted(engine.asked) == asked, "the stage itself asks nothing"


def test_a_shard_of_other_parameters_is_told(engine):
    params = params_of(2)
    for shard in params.shards:
        ask(shard, params)
    with pytest.raises(StageError, match="no shard has the reply about slate"):
        run(params_of(2, seed=8))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"shards": [0, 1], "reads": SHARDS}, "the teacher statistical takes seconds"),
        ({"shards": [0, 1], "teacher": "language_model"}, "set traces.reads to data/traces_shard"),
        (
            {"shards": [0], "reads": SHARDS, "teacher": "language_model", "language_model": {"engine": {"kind": "endpoint"}}},
            "endpoint.concurrency",
        ),
    ],
)
def test_keys_that_do_not_go_together(values, problem):
    with pytest.raises(ValueError, match=problem):
        TracesParams.model_validate(values)
