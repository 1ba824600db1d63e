"""A small decoder from scratch, with a head start in copying.

Copying a SID needs an induction circuit: heads that write into each token what came some places before it, and later heads that find
where the same came before (Olsson et al. 2022, arXiv 2209.11895). A small model takes most of a short run to find it by chance. Under
rotary positions a fixed look-back is a constant query and key, so Qwen2's biases can hold it from the start; equal content is found
in the slowly turning dimensions of a head, whatever the distance. What to copy when is left to training (docs/training.md).
"""

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from stages.midtrain.params import MidtrainParams
from stages.shared.core.errors import StageError
from stages.shared.slates.candidate_features import FEATURES
from stages.shared.slates.prompts import RELEVANCE_LEVELS

ROPE_THETA = 1e6
LOOK_BACK = 7  # from the end of a SID, its relevance and letter included; from a letter, all its features
WRITE, MATCH, COPY = 0.15, 6.0, 0.3  # strong enough to be seen next to the token itself, and to pick one place among hundreds
# Second layer, a head each: what it holds at its own place (block of the offset; 0 = the token) and where it wants to find the same.
FOLLOWER, POINTERS, SAME, LEAD = (0, 1), ((1, 2), (2, 3), (3, 4)), (0, 0), (7, 0)
MATCHES = (FOLLOWER, *POINTERS, SAME, LEAD, SAME)
COPYING, NAMING = range(4), 6  # heads that predict the token found, and the one that predicts the token before the one found
SLOW_TOKENS = 400  # a prompt's length: over so many tokens a dimension that matches content turns by less than half a radian
BIN_TURNS, RELEVANCE_TURNS = [1.0], [1.0, 2.0, 4.0, 8.0]  # half turns of the waves that place a word on its scale
SHARPNESS = 8.0  # length of the constant query and key in each rotary pair: the wanted offset then takes nearly all attention


def scratch_model(params: MidtrainParams, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """StageError where the copy circuit is wanted and does not fit."""
    if params.copy_circuit and (params.heads < LOOK_BACK or params.layers < 2):
        raise StageError(
            f"params.yaml: midtrain.copy_circuit takes {LOOK_BACK} heads and 2 layers at least "
            f"(heads: {params.heads}, layers: {params.layers}); raise them or set midtrain.copy_circuit to false"
        )
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
    model = Qwen2ForCausalLM(config)
    order_scales(model, tokenizer)
    if params.copy_circuit:
        install_copy_circuit(model)
    return model


@torch.no_grad()
def order_scales(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Places the embeddings of a feature's bins, and of the relevances, on waves: near levels start near, as positions do in a
    transformer.

    Left to chance they are tables to learn by heart. Features are weighed up, so one slow wave does; relevances are sorted, which takes
    fast waves that separate neighbours.
    """
    scales = [([f" {feature}{level}" for level in range(10)], BIN_TURNS) for feature in FEATURES]
    scales.append(([f" s{relevance}" for relevance in range(RELEVANCE_LEVELS)], RELEVANCE_TURNS))
    weight: Any = model.get_input_embeddings().weight
    std = model.config.initializer_range
    for words, turns in scales:
        rows = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
        if any(len(row) != 1 for row in rows):
            raise StageError(f"midtrain.text_vocabulary is too small: '{words[0].strip()}' is not one token; raise it")
        centre, axes = torch.randn(weight.shape[1]) * std, torch.randn(2 * len(turns), weight.shape[1]) * std
        angles = math.pi * torch.arange(len(words))[:, None] / (len(words) - 1) * torch.tensor(turns)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1) / math.sqrt(len(turns) / 2)
        for (row,), wave in zip(rows, waves, strict=True):
            weight[row] = 0.5 * weight[row] + 0.5 * centre + wave @ axes


@torch.no_grad()
def install_copy_circuit(model: PreTrainedModel) -> None:
    """Layer 1: head h looks h + 1 tokens back and writes what it finds into its own subspace. Layer 2 matches by it (MATCHES).

    The subspaces are blocks of one random orthogonal matrix; block 0 reads the token itself. All other outputs of attention and MLPs
    start at zero: drawn at random they would drown these.
    """
    hidden = model.config.hidden_size
    first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    dim = first.head_dim
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    slow = slow_dimensions(model)
    width = min(len(slow), hidden // (LOOK_BACK + 2))
    matrix = torch.linalg.qr(torch.randn(hidden, hidden)).Q
    blocks, identity = matrix[: (LOOK_BACK + 1) * width].split(width), matrix[(LOOK_BACK + 1) * width :][:dim]
    for head in range(LOOK_BACK):
        look_back(model, head, head + 1)
        carry(first, head, blocks[0], WRITE * blocks[head + 1])
    for head, (query, key) in enumerate(MATCHES):
        rows = slice(head * dim, (head + 1) * dim)
        second.q_proj.weight[rows] = torch.zeros(dim, hidden).index_copy(0, slow[:width], MATCH * blocks[query])
        second.k_proj.weight[rows] = torch.zeros(dim, hidden).index_copy(0, slow[:width], blocks[key])
        if head == NAMING:
            carry(second, head, blocks[1], COPY * blocks[0])
        elif head in COPYING:
            carry(second, head, identity, COPY * identity)


def carry(attention: Any, head: int, read: Tensor, write: Tensor) -> None:
    """Makes `head` read the subspace `read` [w, hidden], w <= head_dim, where it attends, and write it as `write` [w, hidden]."""
    start = head * attention.head_dim
    attention.v_proj.weight[start : start + len(read)] = read
    attention.o_proj.weight[:, start : start + len(read)] = write.T


def slow_dimensions(model: PreTrainedModel) -> Tensor:
    """Dimensions of a head that turn so slowly with the position that content can be matched in them over SLOW_TOKENS."""
    frequencies = model.model.rotary_emb.inv_freq
    pairs = (frequencies * SLOW_TOKENS < 0.5).nonzero()[:, 0]
    return torch.cat([pairs, pairs + len(frequencies)])


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
