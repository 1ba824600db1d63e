"""The random Qwen3 of the profile tiny-qwen3, and what it reads.

After a change on purpose: python -m tests.stages.shared.lm.test_tiny_qwen3 rewrites the golden files.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM

from stages.midtrain.midtrain import make_model
from stages.midtrain.new_rows import ItemCodes
from stages.midtrain.params import MidtrainParams
from stages.shared.lm.encoding import encode
from stages.shared.lm.models import load_tokenizer
from stages.shared.lm.packaged import packaged_model
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import order_of
from stages.tools.memory.shapes import shape_of
from tasks.project.profiles import render
from tests.stages.shared.slates.test_compact import CATALOG, DIGITS, SLATE

LEVELS, CODES = 4, 32
GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[4]


@cache
def profile() -> dict:
    return yaml.safe_load(render(ROOT, "tiny-qwen3"))


@cache
def student():
    """Model and tokenizer as mid-training makes them."""
    layout = ChatLayout(CATALOG, PromptParams(**profile()["prompt"]))
    params = MidtrainParams(**profile()["midtrain"] | {"deepspeed": "", "processes": 1})  # one process: this one
    codes = ItemCodes(CATALOG, np.full((len(CATALOG.sids), LEVELS), CODES - 1), Path("no such file"))
    model, tokenizer, _ = make_model(params, [], codes, layout)
    return model, tokenizer, layout


def texts() -> dict[str, str]:
    """What the model reads, and what it is taught to write."""
    _, tokenizer, layout = student()
    [prompt] = EncodedLayout(layout, tokenizer).prompts([SLATE])
    document = [
        (layout.prompt(SLATE), 0.0),
        (layout.trace(SLATE, DIGITS) + THINK_END + layout.answer(SLATE, order_of(DIGITS)), 1.0),
    ]
    [taught] = encode([document], tokenizer)
    assert taught.ids[: len(prompt)] == prompt, "it is taught on the prompt that it is asked with"
    found = {"prompt.txt": tokenizer.decode(prompt), "written.txt": tokenizer.decode(taught.ids[len(prompt) :])}
    long = replace(CATALOG, titles=["A title that goes on and on, until it does not fit"] * len(CATALOG.titles))
    tight = EncodedLayout(ChatLayout(long, layout.options.model_copy(update={"max_tokens": len(prompt) + 40})), tokenizer)
    [cut] = tight.prompts([SLATE])
    assert tight.cuts["titles"] and not tight.cuts["too_long"] and len(cut) <= len(prompt) + 40
    return {**found, "prompt_cut.txt": tokenizer.decode(cut)}


def test_prompts_are_the_golden_ones():
    written = texts()
    assert sorted(written) == sorted(path.name for path in GOLDEN.iterdir())
    for name, text in written.items():
        assert text == (GOLDEN / name).read_text(encoding="utf-8"), name


def test_it_has_what_qwen3_8b_has():
    folder = packaged_model("tiny-qwen3")
    config, tokenizer = AutoConfig.from_pretrained(folder), load_tokenizer(folder)
    assert config.model_type == "qwen3" and not config.tie_word_embeddings and not config.attention_bias
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.vocab_size > len(tokenizer), "rows that no token has"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert model.dtype == torch.bfloat16 and "model.layers.0.self_attn.q_norm.weight" in model.state_dict()
    assert tokenizer.chat_template and tokenizer.eos_token == "<|im_end|>"
    assert 5e6 < model.num_parameters() < 8e6
    # The same weights on every machine and in every session: what is learnt from them is identified by this folder's name alone.
    again = AutoModelForCausalLM.from_pretrained(packaged_model("tiny-qwen3"), dtype="auto")
    assert all(torch.equal(left, right) for left, right in zip(model.parameters(), again.parameters(), strict=True))


def test_semantic_ids_get_rows_of_their_own():
    model, tokenizer, _ = student()
    assert model.get_input_embeddings().weight.shape[0] >= len(tokenizer)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token != tokenizer.eos_token
    shape = shape_of(packaged_model("tiny-qwen3"))
    assert shape is not None and model.num_parameters() == shape.with_sids(LEVELS, CODES).parameters


@pytest.mark.parametrize("name", ["tiny-qwen3", "smollm2-135m"])
def test_the_formula_counts_its_parameters(name):
    folder = packaged_model(name)
    shape = shape_of(folder)
    assert shape is not None and shape.parameters == AutoModelForCausalLM.from_pretrained(folder).num_parameters()
    assert shape.tokens == len(load_tokenizer(folder))


if __name__ == "__main__":
    for file, content in texts().items():
        (GOLDEN / file).write_text(content, encoding="utf-8")
