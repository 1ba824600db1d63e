"""params.yaml checked whole: every section at once, contradictions between stages, and YAML that stands for more than it shows."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.tools.check_params import Params, check, main
from tasks.project.profiles import profile_names, render
from tests.support.dvc_toy import ROOT

GIVEN = {"retrieve__model": "given", "retrieve__reads": "x"}
TABLE = {"ingest__source": "table", "ingest__folder": "x", "ingest__table__interactions": "log.csv", "ingest__table__items": "items.csv"}


def text(**keys: Any) -> str:
    """params.yaml with values in place: `rl__max_tokens` is the key rl.max_tokens."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in keys.items():
        *above, last = key.split("__")
        section = document
        for name in above:
            section = section[name]
        section[last] = value
    return yaml.safe_dump(document, sort_keys=False)


@pytest.mark.parametrize("profile", profile_names(ROOT))
def test_every_profile_is_valid(profile: str) -> None:
    assert check(render(ROOT, profile), "params.yaml") == []


def test_no_section_is_left_out() -> None:
    assert {*Params.__annotations__, "resources"} == set(yaml.safe_load((ROOT / "params.yaml").read_text()))


def test_faults_of_all_sections_are_told_at_once() -> None:
    faults = check(text(ingest__sourc="table", report__resample=5, rl__group="eight", evaluate=None, sft=[1]), "params.yaml")
    assert len(faults) == 5
    assert "params.yaml: ingest.sourc: unknown key; did you mean 'source'?" in faults[0]
    assert "params.yaml: sft: a mapping of keys is expected (got [1], a list)" in faults[1]
    assert "params.yaml: rl.group: " in faults[2] and "(got 'eight', a str)" in faults[2]
    assert "params.yaml: evaluate: a mapping of keys is expected (got nothing)" in faults[3]
    assert "params.yaml: report.resample: unknown key; did you mean 'resamples'?" in faults[4]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"distil__mode": "race", "prompt__reasoning": False}, "distil.mode: race learns the answers of a model that reasons"),
        ({"distil__mode": "on_policy"}, "mode: on_policy learns from another model than the student; name its folder in teacher"),
        ({"rl__start": "data/distil/model"}, "rl.start: data/distil/model is empty where distil.mode is none"),
        ({"rl__start": "data/distil/model", "distil__mode": "answer_only"}, "rl.start: data/distil/model answers at once"),
        (
            {"rl__start": "data/distil/model", "distil__mode": "on_policy", "distil__teacher": "data/rl/model"},
            "rl.start: data/distil/model is made of data/rl/model, which is made of it",
        ),
        ({"quantize__scheme": "int4", "quantize__group_size": 128}, "quantize.group_size: 128 does not divide the 192 inputs of a layer"),
        ({"quantize__protect": ["head"]}, "quantize.protect: head: the head of this model is its embedding matrix itself"),
        ({"quantize__method": "quantlrm"}, "quantize: method: quantlrm reads how fine-tuning moved the weights"),
        (
            {**GIVEN, **TABLE, "ingest__table__timestamp": ""},
            "retrieve.model: given puts slates where they belong by time, and ingest.table.timestamp names no column",
        ),
        ({"retrieve__candidates": 27}, "retrieve.candidates: a slate of 27 candidates: the prompt has letters for 26 at most"),
        ({"prompt__history": 21}, "prompt.history: 21 items are to be shown, and retrieve.history keeps 20"),
        (
            {"retrieve__model": "language_model", "retrieve__reads": "data/midtrain/model", "retrieve__language_model__beam": 9},
            "retrieve.language_model.beam: a beam of 9 cannot find the 10 of retrieve.candidates",
        ),
        ({"ingest__source": "synthetic", "ingest__min_interactions": 61}, "ingest.min_interactions: no user has 61"),
        (
            {"ingest__source": "synthetic", "ingest__world__items": 40, "ingest__world__longest": 20, "ingest__world__shortest": 10,
             "retrieve__candidates": 20},
            "retrieve.candidates: 20 that a user has not taken cannot be had of ingest.world.items = 40",
        ),
        ({"traces__teacher": "language_model"}, "traces.language_model.model: infra/models/none is no model"),
        (
            {
                "traces__teacher": "language_model",
                "traces__language_model__model": "models/teacher",
                "traces__language_model__engine__kind": "endpoint",
            },
            "traces.language_model.engine.endpoint: base_url and model are needed",
        ),
        ({"evaluate__engine__kind": "endpoint"}, "evaluate.engine.kind: Input should be 'transformers' or 'vllm'"),
        (
            {
                "traces__teacher": "ranker_explained",
                "prompt__layout": "chat",
                "prompt__evidence": False,
                "midtrain__model": "infra/models/smollm2-135m",
            },
            "traces.teacher: ranker_explained explains its order by the evidence",
        ),
        ({"traces__keep": 9}, "traces.keep: 9 traces of a slate cannot be kept of 8 attempts"),
        ({"prompt__layout": "chat"}, "prompt.layout: chat speaks through the chat template of a pretrained model"),
        (
            {"prompt__layout": "chat", "midtrain__model": "models/any", "prompt__think_tokens": 400}
            | {"rl__max_tokens": 460, "evaluate__max_tokens": 480},
            "rl.max_tokens: 460 tokens are cut before an answer of prompt.think_tokens and prompt.explanation_tokens, 464 together",
        ),
        ({"midtrain__hidden": 231}, "midtrain.hidden: 231 must be a multiple of 2 * heads = 6"),
        ({"rl__processes": 2}, "rl: processes: 2 processes need deepspeed"),
        ({"midtrain__new_rows_lr": 0.1, "midtrain__deepspeed": "infra/deepspeed/zero2.json"}, "midtrain.new_rows_lr: DeepSpeed steps on"),
        ({"midtrain__row_length": 2048}, "midtrain.row_length: rows of 2048 tokens do not fit into midtrain.max_length = 1024"),
        ({"rl__max_tokens": 1024}, "rl.max_tokens: 1024 tokens and their prompt do not fit into midtrain.max_length = 1024"),
        (
            {"evaluate__engine__kind": "vllm", "evaluate__engine__max_model_len": 100},
            "evaluate.engine.max_model_len: 100 tokens leave no room",
        ),
        (
            {"prompt__layout": "chat", "prompt__max_tokens": 900, "midtrain__model": "models/any", "evaluate__engine__kind": "vllm"},
            "evaluate.engine.max_model_len: 1024 tokens do not hold a prompt of prompt.max_tokens = 900 and evaluate.max_tokens = 160",
        ),
        ({"evaluate__engine__kind": "vllm", "evaluate__engine__max_model_len": 4096}, "is more than the model has positions"),
        ({"midtrain__lora__rank": 8, "midtrain__optimizer": "adamw"}, "midtrain.lora.rank: adapters are for a pretrained model"),
        (
            {f"midtrain__{task}_share": 0.0 for task in ("sequence", "caption", "preference", "sorting", "judging")},
            "midtrain: all shares are 0; give at least one of sequence_share, caption_share",
        ),
        ({"sft__deepspeed": "infra/deepspeed/zero9.json"}, "sft.deepspeed: infra/deepspeed/zero9.json: no such file or directory; name a"),
        ({"distil__deepspeed": "README.md", "distil__mode": "race"}, "distil.deepspeed: README.md: not valid JSON"),
        ({"rl__deepspeed": "infra/deepspeed/zero3.json"}, "rl.deepspeed: infra/deepspeed/zero3.json: rl.shared_prefix: cache takes ZeRO"),
        (
            {"distil__deepspeed": "infra/deepspeed/zero3.json", "distil__mode": "on_policy", "distil__teacher": "models/teacher"},
            "distil.deepspeed: infra/deepspeed/zero3.json: distil.mode: on_policy samples from local weights",
        ),
        ({"rl__grounding_weight": 0.1, "prompt__reasoning": False}, "rl.grounding_weight: this prompt's traces have no quoted facts"),
        ({"rl__allocation__prof_share": 0.5, "prompt__reasoning": False}, "rl.allocation.prof_share: this prompt's traces have no quoted"),
        (
            {"evaluate__max_tokens": 61, "prompt__answer": "sids"},
            "evaluate.max_tokens: 61 tokens cannot hold an answer that names 10 candidates (prompt.answer: sids), which takes 62 at least",
        ),
        ({"rl__max_tokens": 16, "retrieve__candidates": 15}, "rl.max_tokens: 16 tokens cannot hold an answer that names 15 candidates"),
        ({"tokenize__append_to": "no/such"}, "tokenize.append_to: no/such: no such folder"),
    ],
)  # fmt: skip
def test_contradictions_between_stages(keys: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # DeepSpeed files are named relative to it
    (fault,) = check(text(**keys), "params.yaml")
    assert fault.startswith("params.yaml: ") and message in fault


def test_keys_that_do_not_go_together_are_shown_without_the_whole_section() -> None:
    (fault,) = check(text(retrieve__hidden=65), "params.yaml")
    assert fault == "params.yaml: retrieve: hidden (65) must be a multiple of heads (2)"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(text())
    bad.write_text(text(rl__lrr=1))
    assert main([str(good)]) == 0 and capsys.readouterr().out == ""
    assert main([str(good), str(bad)]) == 1 and "rl.lrr: unknown key" in capsys.readouterr().out


def test_the_check_needs_no_library_that_takes_seconds_to_import():
    code = "import sys, stages.tools.check_params; print([name for name in ('torch', 'transformers', 'lightgbm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
