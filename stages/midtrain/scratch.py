"""A small decoder from scratch, with a head start: some heads of the first layer look back a fixed number of tokens.

Copying a SID needs an induction circuit: a head that tells each token its predecessor, and a later one that finds where that
predecessor stood before (Olsson et al. 2022, arXiv 2209.11895). The second is learnt fast, the first takes a small model most of a
short run. Under rotary positions a fixed look-back is a constant query and a constant key, so Qwen2's biases can hold it from the start.
"""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from stages.midtrain.params import MidtrainParams

SHARPNESS = 8.0  # length of the constant query and key in each rotary pair: the wanted offset then takes nearly all attention


def scratch_model(params: MidtrainParams, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=params.hidden,
        intermediate_size=params.intermediate,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.heads,
        max_position_embeddings=params.max_length,
        initializer_range=params.init_std,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(params.seed)
    model = Qwen2ForCausalLM(config)
    for head, offset in enumerate(range(1, min(params.look_back, params.heads) + 1)):
        look_back(model, head, offset)
    return model


@torch.no_grad()
def look_back(model: PreTrainedModel, head: int, offset: int) -> None:
    """Makes `head` of the first layer attend `offset` tokens back, whatever the tokens are. It stays free to learn otherwise.

    Rotary pair d turns by theta_d a position; with query (s, 0) and key s (cos, sin)(offset theta_d) the score is
    s^2 sum_d cos(theta_d (distance - offset)), largest where distance = offset.
    """
    attention = model.model.layers[0].self_attn
    dim = attention.head_dim
    half = dim // 2
    rows = slice(head * dim, (head + 1) * dim)
    theta = model.model.rotary_emb.inv_freq[:half].float()
    attention.q_proj.weight[rows].zero_()
    attention.k_proj.weight[rows].zero_()
    zeros = torch.zeros(half)
    attention.q_proj.bias[rows] = SHARPNESS * torch.cat([torch.ones(half), zeros])
    attention.k_proj.bias[rows] = SHARPNESS * torch.cat([torch.cos(offset * theta), torch.sin(offset * theta)])
