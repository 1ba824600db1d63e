"""A small decoder from scratch: Qwen2's architecture with Qwen2's own initialisation, no weight placed by hand.

Every matrix and embedding is drawn from a normal distribution of standard deviation `midtrain.init_std`, biases are zero and norms one
(transformers' Qwen2PreTrainedModel; 0.02 is the published initializer_range).
"""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from stages.midtrain.params import MidtrainParams

# Qwen2 has 1e6 for contexts of 32k tokens; here a prompt has a few hundred, and Llama 2's base for 4k turns more of a head's dimensions.
ROPE_THETA = 1e4


def scratch_model(params: MidtrainParams, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    config = Qwen2Config(
        # A multiple of 64 suits matrix kernels; no token has the rows beyond the tokenizer's.
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=params.hidden,
        intermediate_size=params.intermediate,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.heads,
        max_position_embeddings=params.max_length,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        initializer_range=params.init_std,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(params.seed)
    return Qwen2ForCausalLM(config)
