"""Loss and gradients equal those of TRL's GRPOTrainer on one frozen batch in float32; the advantages of GDPO and of a batch, too.

TRL runs prompt + response for each answer, we share the prompt; the old probabilities are off by some noise, so that the clip binds.
"""

import pytest
import torch

from stages.rl.logprobs import response_logprobs
from stages.rl.objectives.advantages import batch_normalised, centred, gdpo_normalised, gdpo_sums, group_normalised
from stages.rl.objectives.choose import OBJECTIVES
from stages.rl.objectives.parts import Part, Whole
from stages.rl.params import RlParams
from stages.rl.update import batch_moments
from tests.support.tiny_models import random_prompts, tiny_model, tiny_tokenizer

LOW, HIGH = 0.2, 0.28
TOKENIZER = tiny_tokenizer()
VOCABULARY, PAD, GROUP, LONGEST = -(-len(TOKENIZER) // 64) * 64, TOKENIZER.pad_token_id, 4, 16
WEIGHTS = [1.0, 0.4]
PARTS_KPG = torch.randn(2, 2, GROUP, generator=torch.Generator().manual_seed(5))


def rank(completions, **_) -> list[float]:
    return PARTS_KPG[0].flatten().tolist()


def form(completions, **_) -> list[float]:
    return PARTS_KPG[1].flatten().tolist()


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    arguments = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        epsilon=LOW,
        epsilon_high=HIGH,
        beta=0.0,
        num_generations=GROUP,
        per_device_train_batch_size=8,
        max_completion_length=LONGEST,
        use_cpu=True,
        bf16=False,
        use_bias_correction_kl=False,  # of DeepSeek-V3.2; ours is GRPO's own
        reward_weights=WEIGHTS,
        report_to=[],
    )
    return GRPOTrainer(
        model=tiny_model(VOCABULARY, PAD, TOKENIZER.eos_token_id),
        reward_funcs=[rank, form],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["a"] * 8}),
        processing_class=TOKENIZER,
    )


PROMPTS = random_prompts(2, VOCABULARY, 5, 9)
FLAT = random_prompts(8, VOCABULARY, 3, 12, seed=2)


@pytest.mark.parametrize(
    ("name", "loss_type", "level", "kl"),
    [
        ("dapo", "dapo", "token", 0.0),
        ("grpo", "grpo", "token", 0.0),
        ("dr_grpo", "dr_grpo", "token", 0.0),
        ("gspo", "grpo", "sequence", 0.0),
        ("grpo", "grpo", "token", 0.3),
        ("dapo", "dapo", "token", 0.3),
    ],
)
def test_loss_and_gradient_equal_those_of_trl(trainer, monkeypatch, name, loss_type, level, kl):
    monkeypatch.setattr(trainer, "loss_type", loss_type)
    monkeypatch.setattr(trainer, "importance_sampling_level", level)
    monkeypatch.setattr(trainer, "beta", kl)
    model = trainer.model.eval()
    generator = torch.Generator().manual_seed(3)
    gains = torch.randn(8, generator=generator)
    logp, mask, *_ = response_logprobs(model, PROMPTS, [FLAT[:4], FLAT[4:]], PAD)
    old = logp.detach() + 0.3 * torch.randn(logp.shape, generator=generator)
    reference = logp.detach() + 0.3 * torch.randn(logp.shape, generator=generator) if kl else None
    params = RlParams(clip_low=LOW, clip_high=HIGH, group=GROUP, max_tokens=LONGEST, kl=kl)
    part = Part(logp, old, mask, gains, gains, gains > 0, reference_BT=reference)
    value = OBJECTIVES[name].loss(part, Whole(float(mask.sum()), 8.0), params).value
    ours = torch.autograd.grad(value, list(model.parameters()))

    width, length = max(map(len, PROMPTS)), max(map(len, FLAT))
    repeated = [prompt for prompt in PROMPTS for _ in range(GROUP)]
    inputs = {
        "prompt_ids": torch.tensor([[PAD] * (width - len(p)) + p for p in repeated]),
        "prompt_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in repeated]),
        "completion_ids": torch.tensor([r + [PAD] * (length - len(r)) for r in FLAT]),
        "completion_mask": mask.long(),
        "advantages": gains,
        "old_per_token_logps": old,
        "num_items_in_batch": mask.sum(),
        "ref_per_token_logps": reference,
    }
    theirs = trainer._compute_loss(model, inputs)
    gradients = torch.autograd.grad(theirs, list(model.parameters()))
    assert value.item() == pytest.approx(theirs.item(), rel=1e-5, abs=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in gradients)
    assert scale > 1e-3
    for left, right in zip(ours, gradients, strict=True):
        assert torch.allclose(left / scale, right / scale, atol=1e-5)


@pytest.mark.parametrize("scale", ["group", "batch", "none", "gdpo"])
def test_advantages_equal_those_of_trl(trainer, monkeypatch, scale):
    """TRL's own path from prompts to advantages, with two rewards written beforehand."""
    monkeypatch.setattr(trainer, "multi_objective_aggregation", "normalize_then_sum" if scale == "gdpo" else "sum_then_normalize")
    monkeypatch.setattr(trainer, "scale_rewards", scale if scale != "gdpo" else "group")
    trainer.model.train()
    theirs = trainer._generate_and_score_completions([{"prompt": "a"}] * 4 + [{"prompt": "b"}] * 4)["advantages"].view(2, GROUP)
    if scale == "gdpo":
        sums = gdpo_sums(PARTS_KPG, WEIGHTS)
        ours = gdpo_normalised(sums, *batch_moments(sums))
    else:
        function = {"group": group_normalised, "batch": batch_normalised, "none": centred}[scale]
        rewards_PG = (PARTS_KPG * torch.tensor(WEIGHTS)[:, None, None]).sum(0)
        ours = function(rewards_PG, batch_moments(rewards_PG)[1])
    assert theirs.abs().max() > 0.1 and torch.allclose(ours, theirs, atol=1e-5)
