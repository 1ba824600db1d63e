"""The tree form under ZeRO-3 in two processes: gradients, whole weights to sample from, a process without a group."""

import pytest
import torch

from stages.rl.params import RlParams
from tests.support.rl_run import gradients, group, loss_of, opened
from tests.support.tiny_models import random_prompts, tiny_folder

OPTIONS = {"shared_prefix": "tree", "gradient_checkpointing": True, "logprob_chunk": 8}
LORA = {"rank": 4, "targets": ["q_proj", "down_proj"]}


def alone(folder, form, lora):
    """Mean gradients of the processes' losses, in one process and the given form; and the logits to sample from."""
    tiny_folder(folder / "model")
    policy = opened(RlParams.model_validate({"shared_prefix": form, "lora": lora}), folder)
    with torch.no_grad():
        logits = policy.module(input_ids=torch.tensor(random_prompts(1, 200, 12, 12))).logits
    (sum(loss_of(policy, place) for place in range(2)) / 2).backward()
    return {name: parameter.grad for name, parameter in policy.module.named_parameters() if parameter.grad is not None}, logits


@pytest.mark.parametrize(
    ("lora", "precision", "tolerance"),
    [({}, "float32", 1e-5), (LORA, "float32", 1e-5), (LORA, "bfloat16", 0.06)],
    ids=["whole", "lora", "lora in bfloat16"],
)
def test_two_processes_have_the_gradients_of_the_plain_form_in_one(tmp_path, lora, precision, tolerance):
    """With gradient checkpointing, and chunks of which one process has more than the other."""
    assert len({sum(map(len, group(place)[1][0])) // 8 for place in range(2)}) == 2
    expected, logits = alone(tmp_path / "alone", "none", lora)
    found, sampled = gradients(tmp_path / "two", 2, precision=precision, lora=lora, **OPTIONS)
    assert found.keys() == expected.keys() and sampled["whole"].all()
    assert torch.allclose(sampled["logits"], logits, atol=1e-5), "the sampler has float32 weights in any case"
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    worst = max(float((found[name] - expected[name]).abs().max()) / scale for name in expected)
    assert scale > 0.1 and worst < tolerance
