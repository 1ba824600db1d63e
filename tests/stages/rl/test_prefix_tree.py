"""The tree form by itself: what each token sees, what is kept for the backward pass, and what happens where it is wrong."""

import pytest
import torch
from transformers import AttentionInterface

from stages.rl import prefix_tree
from stages.rl.logprobs import chunked_scores, tree_rows
from stages.rl.params import RlParams
from stages.rl.policy import TOLERANCE, open_policy
from stages.rl.prefix_tree import Tree, tree_attention
from stages.shared.core.errors import StageError
from tests.support.tiny_models import random_prompts, tiny_model

VOCABULARY, PAD = 64, 0
PROMPTS = random_prompts(2, VOCABULARY, 30, 60, seed=5)
FLAT = random_prompts(12, VOCABULARY, 4, 9, seed=6)
RESPONSES = [FLAT[:6], FLAT[6:]]


def opened(model=None, **options):
    policy = open_policy(model or tiny_model(VOCABULARY), RlParams.model_validate({"shared_prefix": "tree", **options}))
    policy.module.train()
    return policy


def whole_mask(trees: list[Tree]) -> torch.Tensor:
    """Who sees whom, token by token, from the definition: bool [L, L]."""
    places = []  # (tree, answer or None, place within the trunk or the answer)
    for number, tree in enumerate(trees):
        places += [(number, None, place) for place in range(tree.prompt)]
        places += [(number, answer, place) for answer, length in enumerate(tree.answers) for place in range(length)]

    def sees(one, other) -> bool:
        same_part = one[1] == other[1] and other[2] <= one[2]
        return one[0] == other[0] and (same_part or (one[1] is not None and other[1] is None))

    return torch.tensor([[sees(one, other) for other in places] for one in places])


@pytest.mark.parametrize("shared", [1, 2, 4], ids=lambda shared: f"{shared} query heads a key head")
def test_attention_equals_softmax_under_the_whole_mask(shared):
    trees = [Tree(5, (3, 1, 4)), Tree(1, (2,)), Tree(7, (6, 6))]
    length = sum(tree.tokens for tree in trees)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, length, 8, generator=generator) for heads in (4, 4 // shared, 4 // shared))
    found, _ = tree_attention(torch.nn.Module(), query, key, value, None, scaling=0.3, trees=trees)
    scores = 0.3 * query @ key.repeat_interleave(shared, 1).mT
    expected = scores.masked_fill(~whole_mask(trees), -torch.inf).softmax(-1) @ value.repeat_interleave(shared, 1)
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-6)


def test_a_row_has_every_prompt_once_and_no_padding():
    inputs, places, targets = tree_rows(PROMPTS, RESPONSES, torch.device("cpu"))
    assert inputs["input_ids"].shape == (1, sum(map(len, PROMPTS)) + sum(map(len, FLAT))) == inputs["position_ids"].shape
    before = inputs["input_ids"][0, places].tolist()
    last = [prompt[-1] for prompt, own in zip(PROMPTS, RESPONSES, strict=True) for _ in own]
    assert before == [token for first, response in zip(last, FLAT, strict=True) for token in (first, *response[:-1])]
    assert targets.tolist() == [token for response in FLAT for token in response]


@pytest.mark.parametrize("form", ["cache", "tree"])
def test_bfloat16_is_as_near_to_float32_as_the_plain_form_is(bfloat16_kernels, form):
    def gradients(**options) -> torch.Tensor:
        policy = opened(**options)
        scores = policy.score(PROMPTS, RESPONSES, PAD)
        weights = torch.randn(scores.logp.shape, generator=torch.Generator().manual_seed(0))
        (scores.logp * weights * scores.mask).sum().backward()
        return torch.cat([parameter.grad.flatten() for parameter in policy.module.parameters()])

    exact, plain, ours = (gradients(**options) for options in (
        {"shared_prefix": "none"}, {"shared_prefix": "none", "precision": "bfloat16"}, {"shared_prefix": form, "precision": "bfloat16"}
    ))  # fmt: skip
    assert 1e-3 < (plain - exact).norm() / exact.norm() < 0.1
    assert (ours - exact).norm() < 1.5 * (plain - exact).norm()


def saved_bytes(**options) -> int:
    """Of tensors that the forward pass keeps for the backward pass, weights apart; each storage once."""
    policy = opened(**options)
    policy.tree_difference = 0.0
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy.module.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = policy.score(PROMPTS, RESPONSES, PAD)
    assert scores.logp.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_less_is_kept_for_the_backward_pass_than_by_the_plain_form():
    """As the tokens: a prompt of 45 once, not six times, with six answers of 6.5."""
    trees = sum(map(len, PROMPTS)) + sum(map(len, FLAT))
    plain = 6 * sum(map(len, PROMPTS)) + sum(map(len, FLAT))
    for options in ({}, {"gradient_checkpointing": True}, {"precision": "bfloat16"}):
        share = saved_bytes(**options) / saved_bytes(**options, shared_prefix="none")
        assert share < 1.5 * trees / plain < 0.6, options
    assert saved_bytes(gradient_checkpointing=True) < 0.4 * saved_bytes()
    assert saved_bytes(logprob_chunk=8) < saved_bytes() - sum(map(len, FLAT)) * VOCABULARY * 4, "no logits are kept"


def test_no_logits_are_wider_than_a_chunk_and_the_prompt_has_none():
    policy = opened(logprob_chunk=16)
    policy.tree_difference = 0.0
    seen = []
    policy.module.get_output_embeddings().register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    policy.score(PROMPTS, RESPONSES, PAD).logp.sum().backward()
    tokens = sum(map(len, FLAT))
    assert (
        sum(rows for rows, _ in seen) == 2 * tokens and max(rows for rows, _ in seen) == 16 and {width for _, width in seen} == {VOCABULARY}
    )


def test_the_entropy_of_a_token_that_is_certain_is_zero():
    head = torch.nn.Linear(2, 4, bias=False)
    head.weight = torch.nn.Parameter(torch.tensor([[1e4, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    logp, entropy, _ = chunked_scores(head, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 2]), 1)
    assert logp.tolist() == pytest.approx([0.0, -1.3863], abs=1e-4) and entropy.tolist() == pytest.approx([0.0, 1.3863], abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_tree_that_is_wrong_is_left_loudly_for_the_plain_form(precision, capsys, monkeypatch):
    """An attention that takes no notice of the trees, as that of a model with its own."""
    policy = opened(precision=precision)
    monkeypatch.setitem(AttentionInterface._global_mapping, prefix_tree.NAME, AttentionInterface._global_mapping["sdpa"])
    scores = policy.score(PROMPTS, RESPONSES, PAD)
    assert policy.form == "none" and policy.tree_difference > TOLERANCE[precision]
    assert "WARNING: rl.shared_prefix: tree" in capsys.readouterr().err
    expected = opened(precision=precision, shared_prefix="none").score(PROMPTS, RESPONSES, PAD)
    assert torch.equal(scores.logp, expected.logp)


def test_the_first_group_alone_is_compared_and_once(capsys):
    policy = opened()
    rows = []
    policy.module.model.layers[0].register_forward_hook(lambda module, args, output: rows.append(args[0].shape[:2]))
    for _ in range(2):
        policy.score(PROMPTS, RESPONSES, PAD)
    first = len(PROMPTS[0]) + sum(map(len, RESPONSES[0]))
    assert rows[:2] == [(1, first), (6, len(PROMPTS[0]) + max(map(len, RESPONSES[0])))]
    assert len(rows) == 4 and 0 <= policy.tree_difference < 1e-5 and not capsys.readouterr().err


def test_a_model_that_changes_its_logits_after_its_head_is_refused():
    model = tiny_model(VOCABULARY)
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(StageError, match=r"rl\.shared_prefix: tree: .*final_logit_softcapping.* set rl\.shared_prefix: cache"):
        opened(model)


def test_a_saved_model_is_as_it_was(tmp_path):
    policy = opened(lora={"rank": 2})
    policy.finish()
    policy.module.save_pretrained(tmp_path)
    assert prefix_tree.NAME not in (tmp_path / "config.json").read_text() and policy.module.config._attn_implementation == "sdpa"
