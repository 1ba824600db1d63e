"""Attention over rows in which a group's prompt stands once, its answers behind it: a tree of one trunk and G branches.

A token of the prompt sees the prompt up to itself, a token of an answer sees the whole prompt and its own answer up to itself. Under a mask
over the whole row the products of answers with each other would be made, too, and thrown away; here two calls a group make those alone that
count: the prompt with itself, and each answer with prompt and itself. Both are plain scaled dot products within a layer, so that it can be
recomputed in the backward pass (gradient checkpointing) and its weights gathered for it alone (ZeRO-3), unlike one that fills a cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "prefix_tree"  # among transformers' attention implementations


@dataclass(frozen=True)
class Tree:
    """A part of a row: `prompt` tokens, then those of each answer, one answer after the other."""

    prompt: int
    answers: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return self.prompt + sum(self.answers)


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    trees: Sequence[Tree] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [1, H, L, D], key and value [1, H_kv, L, D] of a row made of `trees` -> [1, L, H, D]. Without trees: transformers' sdpa."""
    if trees is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs)
    parts = [states[0].split([tree.tokens for tree in trees], dim=1) for states in (query, key, value)]
    outputs = [_of_tree(tree, q_HLD, k_HLD, v_HLD, dropout, scaling) for tree, q_HLD, k_HLD, v_HLD in zip(trees, *parts, strict=True)]
    return torch.cat(outputs)[None], None


def _of_tree(tree: Tree, query_HLD: Tensor, key_HLD: Tensor, value_HLD: Tensor, dropout: float, scaling: float | None) -> Tensor:
    """[L, H, D]"""
    grouped = query_HLD.shape[0] != key_HLD.shape[0]
    (query_P, query_A), (key_P, key_A), (value_P, value_A) = (
        states.split([tree.prompt, sum(tree.answers)], dim=1) for states in (query_HLD, key_HLD, value_HLD)
    )
    trunk = F.scaled_dot_product_attention(
        query_P[None], key_P[None], value_P[None], dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=grouped
    )
    query_GHTD, key_GHTD, value_GHTD = (_side_by_side(states, tree.answers) for states in (query_A, key_A, value_A))
    answers, heads, longest, _ = query_GHTD.shape
    key_GHSD, value_GHSD = (
        torch.cat([of_prompt.expand(answers, -1, -1, -1), own], dim=2) for of_prompt, own in ((key_P, key_GHTD), (value_P, value_GHTD))
    )
    # Query heads that share a head of keys lie behind each other as more tokens: kernels that take a mask take no shared heads.
    shared = heads // key_HLD.shape[0]
    sees_TS = torch.ones(longest, tree.prompt + longest, dtype=torch.bool, device=query_HLD.device).tril(tree.prompt)
    folded = query_GHTD.unflatten(1, (-1, shared)).flatten(2, 3)
    branches = F.scaled_dot_product_attention(
        folded, key_GHSD, value_GHSD, attn_mask=sees_TS.repeat(shared, 1), dropout_p=dropout, scale=scaling
    )
    branches_GTHD = branches.unflatten(2, (shared, longest)).flatten(1, 2).transpose(1, 2)
    return torch.cat([trunk[0].transpose(0, 1), *(own[:length] for own, length in zip(branches_GTHD, tree.answers, strict=True))])


def _side_by_side(states_HLD: Tensor, lengths: Sequence[int]) -> Tensor:
    """[G, H, T, D]: zeros behind the shorter answers, where no token of an answer looks."""
    return pad_sequence(list(states_HLD.transpose(0, 1).split(list(lengths))), batch_first=True).transpose(1, 2)


def use_tree_attention(model: PreTrainedModel) -> None:
    """`model` takes `trees` from here on; without them it is what it was."""
    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
