"""The path of the profile qwen3-8b on a random Qwen3 of six million parameters: all stages through the command line."""

import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from stages.shared.lm.models import load_tokenizer
from stages.shared.slates.layouts.dialogue import is_dialogue, rendered_prompt
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.traces import read_traces
from tasks.project.profiles import render
from tests.support import project_clone
from tests.support.project_clone import LANGUAGE_MODEL_STAGES, ROOT, STAGES, SmokeRun, copy_run_cache, metrics

pytestmark = pytest.mark.slow

# What differs between the two because one is small: everything else that qwen3-8b sets, tiny-qwen3 sets likewise.
SIZES = {"resources", "embed", "tokenize", "traces", "quantize"}
SIZE_KEYS = {
    "prompt": {"history", "max_tokens", "think_tokens", "explanation_tokens"},
    "midtrain": {
        "threads",
        "processes",
        "model",
        "steps",
        "batch_size",
        "accumulate",
        "lr",
        "row_length",
        "loss_chunk",
        "save_steps",
        "validate_steps",
    },
    "sft": {"threads", "processes", "steps", "batch_size", "lr", "loss_chunk", "save_steps", "validate_steps"},
    "rl": {"threads", "processes", "steps", "prompts", "group", "lr", "max_tokens", "batch_size", "logprob_chunk", "save_steps"},
    "evaluate": {"threads", "max_tokens"},
}
AS_IN_SMOKE = set(STAGES) - set(LANGUAGE_MODEL_STAGES) - {"report"}
ENGINE_SIZES = {"max_model_len", "data_parallel", "kv_cache_gb"}


def test_every_feature_of_the_large_profile_is_on() -> None:
    large, tiny = (yaml.safe_load((ROOT / f"infra/profiles/{name}.yaml").read_text()) for name in ("qwen3-8b", "tiny-qwen3"))
    assert set(large) - SIZES == set(SIZE_KEYS), "a section that this test does not know: say which of its keys are sizes"
    for section, sizes in SIZE_KEYS.items():
        for key, value in large[section].items():
            if key in ("engine", "rollout"):
                differing = {name for name in value if tiny[section][key].get(name, 1) != value[name]}
                assert differing <= ENGINE_SIZES, (section, differing)
            elif key not in sizes:
                assert tiny[section].get(key) == value, f"{section}.{key}"
    # Sizes, but of a kind: more than one process, thoughts with a budget, prompts with one, a loss by chunks where the large one has it.
    for section in ("midtrain", "sft", "rl"):
        assert tiny[section]["processes"] > 1
        for key in ("loss_chunk", "logprob_chunk", "save_steps", "validate_steps"):
            assert bool(tiny[section].get(key)) == bool(large[section].get(key)), f"{section}.{key}"
    assert tiny["prompt"]["think_tokens"] and tiny["prompt"]["max_tokens"]


@pytest.fixture(scope="module")
def run(smoke: SmokeRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The clone in which it ran, and the state of each stage. What no language model has part in is that of the smoke run."""
    root = project_clone.clone(tmp_path_factory.mktemp("tiny") / "project")
    copy_run_cache(smoke.root, root, AS_IN_SMOKE)
    # vLLM compiles nothing for a few answers: that takes longer than they do.
    environment = {**project_clone.environment(root), "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-m", "flows.cli", "run", "--profile", "tiny-qwen3"]
    return root, project_clone.states(project_clone.call(root, *command, env=environment))


def test_all_stages_pass(run: tuple[Path, dict[str, str]]) -> None:
    root, states = run
    assert states == dict.fromkeys(STAGES, "Completed") | dict.fromkeys(AS_IN_SMOKE, "Cached"), "the two profiles share these stages"
    assert "profiles" not in states and (root / "data/report/report.html").stat().st_size > 10_000
    assert (root / "params.yaml").read_text() == render(root, "tiny-qwen3")


def test_every_model_is_an_ordinary_folder(run: tuple[Path, dict[str, str]]) -> None:
    root, weights = run[0], {}
    for name in ("midtrain", "sft", "rl", "quantize"):
        folder = root / "data" / name / "model"
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), load_tokenizer(folder)
        assert model.config.model_type == "qwen3" and not model.config.tie_word_embeddings
        assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer) > 49_152
        assert tokenizer.chat_template and tokenizer.eos_token == "<|im_end|>"
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokenizer.encode("History:", add_special_tokens=False)])).logits
        assert torch.isfinite(logits).all()
        weights[name] = model.get_input_embeddings().weight.detach().clone()
    assert all(tensor.numel() for tensor in weights.values()), "a share of ZeRO-3 was saved, not the whole"
    assert not torch.equal(weights["midtrain"], weights["sft"]) and not torch.equal(weights["sft"], weights["rl"])


def test_what_was_asked_is_a_dialogue_in_its_budget(run: tuple[Path, dict[str, str]]) -> None:
    root, prompt = run[0], yaml.safe_load((run[0] / "params.yaml").read_text())["prompt"]
    traces = read_traces(root / "data/traces/traces.parquet")
    assert traces.height and all(map(is_dialogue, traces["prompt"]))
    tokenizer = load_tokenizer(root / "data/sft/model")
    rendered = rendered_prompt(traces["prompt"][0], tokenizer)
    assert rendered.startswith("<|im_start|>system\nYou are an analyst") and rendered.endswith("<|im_start|>assistant\n<think>\n")
    assert " | title " in rendered and "co-occurrence " in rendered

    asked = pl.read_parquet(root / "data/evaluate/invocations.parquet")
    assert set(asked["model"]) == {"sft", "rl", "quantized"}
    cuts = metrics(root, "evaluate")["prompt_cuts"]
    assert all(counts.get("prompts", 0) > 0 for counts in cuts.values()), "a budget that cuts nothing tests nothing"
    too_long = any(counts.get("too_long", 0) for counts in cuts.values())
    assert too_long or asked["prompt_tokens"].max() <= prompt["max_tokens"]
    for row in asked.iter_rows(named=True):
        assert row["prompt"].startswith("<|im_start|>system\n") and row["prompt"].endswith("<|im_start|>assistant\n<think>\n")
        thought, closed, _ = row["completion"].partition(THINK_END)
        assert closed, "the budget closes thoughts with and without the constraint"
        assert len(tokenizer.encode(thought, add_special_tokens=False)) <= 2 * prompt["think_tokens"]  # random tokens may be split again


def test_constrained_answers_are_permutations(run: tuple[Path, dict[str, str]]) -> None:
    table = pl.read_parquet(run[0] / "data/evaluate/outputs.parquet").filter(pl.col("model").is_in(["sft", "rl", "quantized"]))
    greedy = table.filter(pl.col("kind") == "greedy")
    assert greedy.height == 18 and (greedy["fault"] == "").all()


def test_it_trained(run: tuple[Path, dict[str, str]]) -> None:
    root = run[0]
    for name in ("midtrain", "sft"):
        found: dict[str, Any] = metrics(root, name)
        assert found["loss"]["first"] > 0
        assert found["leak_check"]["overlap"] == 0
    assert metrics(root, "sft")["prompt_cuts"]["prompts"] > 0
    assert metrics(root, "rl")["first_fifth"]["kept"] > 0
