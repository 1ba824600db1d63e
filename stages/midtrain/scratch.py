"""A small decoder from scratch, with a head start: some heads of the first layer look back a fixed number of tokens.

Copying a SID needs an induction circuit: a head that tells each token its predecessor, and a later one that finds where that
predecessor stood before (Olsson et al. 2022, arXiv 2209.11895). The second is learnt fast, the first takes a small model most of a
short run. Under rotary positions a fixed look-back is a constant query and a constant key, so Qwen2's biases can hold it from the start.
"""

import math
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from stages.midtrain.params import MidtrainParams
from stages.shared.errors import StageError
from stages.shared.evidence import FACTS
from stages.shared.prompts import STRENGTHS

ROPE_THETA = 1e4
LOOK_BACK = 5
WRITE, MATCH = 0.15, 4.0  # strong enough to be seen beside the token itself, and to pick one place among hundreds
SHARPNESS = 8.0  # length of the constant query and key in each rotary pair: the wanted offset then takes nearly all attention


def scratch_model(params: MidtrainParams, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """StageError where the copy circuit is wanted and does not fit."""
    if params.copy_circuit and (params.heads <= LOOK_BACK or params.layers < 2):
        raise StageError(
            f"params.yaml: midtrain.copy_circuit takes {LOOK_BACK + 1} heads and 2 layers at least "
            f"(heads: {params.heads}, layers: {params.layers}); raise them or set midtrain.copy_circuit to false"
        )
    config = Qwen2Config(
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
    model = Qwen2ForCausalLM(config)
    order_levels(model, tokenizer)
    if params.copy_circuit:
        install_copy_circuit(model)
    return model


@torch.no_grad()
def order_levels(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Draws the embeddings of a fact's levels, and of the strengths, along half a circle each: near levels start near.

    Left to chance, sixty fact words and sixteen strengths are a table to learn by heart; in order they are seven numbers.
    """
    scales = [[f" {fact}{level}" for level in range(10)] for fact in FACTS] + [[f" s{strength}" for strength in range(STRENGTHS)]]
    weight: Any = model.get_input_embeddings().weight
    std = model.config.initializer_range
    for words in scales:
        rows = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        if any(len(row) != 1 for row in rows):
            raise StageError(f"midtrain.text_vocabulary is too small: '{words[0].strip()}' is not one token; raise it")
        centre, across, along = torch.randn(3, weight.shape[1]) * std
        for step, (row,) in enumerate(rows):
            angle = math.pi * step / (len(words) - 1)
            weight[row] = 0.5 * weight[row] + 0.5 * centre + math.cos(angle) * across + math.sin(angle) * along


@torch.no_grad()
def install_copy_circuit(model: PreTrainedModel) -> None:
    """Layer 1: head h looks h + 1 tokens back and writes what stands there into a subspace of its own. Layer 2 matches by it.

    The subspaces are blocks of one random orthogonal matrix, head_dim rows each; block 0 reads the token itself. In layer 2
    head 0 finds what followed the present token before, head 1 what followed the two tokens before, head 2 the same token again.
    """
    hidden = model.config.hidden_size
    dim = model.model.layers[0].self_attn.head_dim
    blocks = torch.linalg.qr(torch.randn(hidden, hidden)).Q.split(dim)
    first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    for head in range(LOOK_BACK):
        rows = slice(head * dim, (head + 1) * dim)
        look_back(model, head, head + 1)
        first.v_proj.weight[rows] = blocks[0]
        first.o_proj.weight[:, rows] = WRITE * blocks[head + 1].T
    for head, (query, key) in enumerate(((0, 1), (1, 2), (0, 0))):
        rows = slice(head * dim, (head + 1) * dim)
        second.q_proj.weight[rows] = MATCH * blocks[query]
        second.k_proj.weight[rows] = blocks[key]


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
