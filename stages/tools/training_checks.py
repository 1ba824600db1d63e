"""What only a training itself would refuse, told before the run: there it comes after hours, once a process, between tracebacks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.distil.params import DistilParams
from stages.midtrain.params import SCRATCH, MidtrainParams
from stages.rl.params import RlParams
from stages.shared.core.launch import TrainingSection
from stages.shared.slates.prompt_params import PromptParams

SHARES = ("sequence", "caption", "preference", "persona", "replay", "sorting", "judging")


def configurations(sections: dict[str, TrainingSection]) -> Iterator[str]:
    """Of the DeepSpeed files that the sections (by name) name, relative to the project: whether they can be read, and go with the rest."""
    for name, section in sections.items():
        if not (section.deepspeed and section.trains):
            continue
        key = f"{name}.deepspeed: {section.deepspeed}"
        try:
            options: Any = json.loads(Path(section.deepspeed).read_text(encoding="utf-8"))
        except OSError as error:
            yield f"{key}: {(error.strerror or str(error)).lower()}; name a DeepSpeed configuration, e.g. infra/deepspeed/zero2.json"
            continue
        except ValueError as error:
            yield f"{key}: not valid JSON: {error}"
            continue
        zero = options.get("zero_optimization", {}) if isinstance(options, dict) else {}
        if isinstance(zero, dict) and zero.get("stage", 0) > 2:
            yield from _whole_weights(key, section)


def _whole_weights(key: str, section: TrainingSection) -> Iterator[str]:
    if isinstance(section, RlParams) and section.shared_prefix == "cache":
        yield f"{key}: rl.shared_prefix: cache takes ZeRO stage 2 at most; set it to tree, or use infra/deepspeed/zero2.json"
    if isinstance(section, DistilParams) and section.mode == "on_policy":
        yield (f"{key}: distil.mode: on_policy samples from local weights and takes ZeRO stage 2 at most; use infra/deepspeed/zero2.json")


def first_training(midtrain: MidtrainParams) -> Iterator[str]:
    if midtrain.lora.rank and midtrain.model == SCRATCH:
        yield f"midtrain.lora.rank: adapters are for a pretrained model, and midtrain.model is {SCRATCH}; name one, or set rank: 0"
    if not any(getattr(midtrain, f"{task}_share") for task in SHARES):
        yield "midtrain: all shares are 0; give at least one of " + ", ".join(f"{task}_share" for task in SHARES)


def quoted_facts(prompt: PromptParams, rl: RlParams) -> Iterator[str]:
    """Rewards and filters that hold a trace against the facts it quotes word by word, as those of `compact` do alone."""
    if prompt.layout == "compact" and prompt.reasoning:
        return
    for key, is_on, off in (
        ("grounding_weight", rl.grounding_weight > 0, "0.0"),
        ("allocation.prof_share", rl.allocation.prof_share < 1, "1.0"),
    ):
        if is_on:
            yield (
                f"rl.{key}: this prompt's traces have no quoted facts to be held against; set it to {off}, or prompt.layout to compact and "
                "prompt.reasoning to true"
            )


def names_fit(names: int, tokens_a_name: int, prompt: PromptParams, lengths: dict[str, int]) -> Iterator[str]:
    """Whether the shortest answer, `names` candidates without a word of thought, fits into max_tokens. lengths: by key."""
    least = names * tokens_a_name + 1 + prompt.reasoning
    for key, tokens in lengths.items():
        if tokens < least:
            yield (
                f"{key}: {tokens} tokens cannot hold an answer that names {names} candidates (prompt.answer: {prompt.answer}), which takes "
                f"{least} at least; raise it"
            )
