"""The layout `chat` through the stages that speak it: a random Qwen3 with SmolLM2's tokenizer, on a small project."""

import json

import polars as pl
import pytest

from stages.rl.params import RlParams
from stages.rl.rl import rl
from stages.sft.params import SftParams
from stages.sft.sft import sft
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.generation.base import Sampling
from stages.shared.generation.reranking.language_model import LanguageModel
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.marks import END
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.traces import read_traces
from stages.traces.params import TracesParams
from stages.traces.traces import traces
from tests.support.chat_models import chat_folder
from tests.support.small_project import CATALOG, make_slates, make_tables, write_project

pytestmark = pytest.mark.slow
OPTIONS = PromptParams(layout="chat", history=3, titles=True, max_tokens=440, explanation_tokens=8)
SCORER = {"rounds": 5, "leaves": 7, "min_leaf": 10, "members": 1}


def test_traces_sft_rl_and_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(json.dumps({"prompt": OPTIONS.model_dump()}))
    slates = make_slates()
    write_project(tmp_path, make_tables(slates, PromptParams()))
    with pytest.raises(StageError, match=r"not written in prompt\.layout: chat; rerun: gr2 run traces"):
        chat_folder(tmp_path / "data/midtrain/model")
        with stage_outputs("sft") as outputs:
            sft(SftParams(threads=1, steps=1, batch_size=1), outputs)

    with stage_outputs("traces") as outputs:
        params = {"threads": 1, "time_folds": 2, "temperature": 0.5, "attempts": 2, "keep": 1, "scorer": SCORER}
        traces(TracesParams.model_validate(params), outputs)
    table, layout = read_traces(), layout_of(CATALOG, OPTIONS)
    assert table.height > 10 and read_json(tmp_path / "data/traces/metrics.json")["sampling"]["faults"] == {}
    assert all(json.loads(answer.removesuffix(END))["explanation"] for answer in table["answer"])

    with stage_outputs("sft") as outputs:
        sft(SftParams(threads=1, steps=1, batch_size=1, processes=1, practice_share=0.5), outputs)
    cuts = read_json(tmp_path / "data/sft/metrics.json")["prompt_cuts"]
    # The budget is less than the shortest form: counted, and nothing stops.
    assert cuts == {"prompts": table.height, "titles": 7 * table.height, "history": 0, "too_long": table.height}

    random = RlParams(
        threads=1,
        steps=1,
        prompts=1,
        group=2,
        micro_prompts=1,
        max_tokens=64,
        max_refills=0,
        batch_size=2,
        reward="random",
        constrained=True,
    )
    with stage_outputs("rl") as outputs:
        rl(random, outputs)
    assert read_json(tmp_path / "data/rl/metrics.json")["prompt_cuts"]["prompts"] > 0

    model, tokenizer = load_model(tmp_path / "data/rl/model"), load_tokenizer(tmp_path / "data/rl/model")
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.chat_template
    short = layout_of(CATALOG, OPTIONS.model_copy(update={"think_tokens": 5}))
    engine = TransformersEngine(model, tokenizer.pad_token_id, tokenizer.eos_token_id)
    asked = LanguageModel(engine, EncodedLayout(short, tokenizer))
    [held] = asked.answers(slates[:2], Sampling(100))
    assert held.valid.all() and held.reasoning_tokens == [6, 6]
    assert all(layout.claims(text).letters == [] for text in held.texts)
    [free] = asked.answers(slates[:1], Sampling(12), constrained=False)
    assert free.faults == ["unfinished"] and free.reasoning_tokens == [6]
    assert pl.Series(held.texts).str.contains('"recommendations"').all()
