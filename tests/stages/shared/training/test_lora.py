"""Adapters and the rows of new tokens: what learns, what stays, and the merged model against the one with adapters."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from stages.shared.core.errors import StageError
from stages.shared.lm.models import save_model
from stages.shared.training.lora import add_lora, merge_lora, sid_and_layout_ids
from stages.shared.training.params import LoraSection, OptimizerSection
from stages.shared.training.trainer import train_supervised
from tests.support.tiny_models import CODEBOOK, LEVELS, tiny_model, tiny_tokenizer
from tests.support.training_run import PAD, SMALL, VOCABULARY, run, trained, uneven_rows

IDS = [40, 41, 50]
SECTION = LoraSection(rank=4, alpha=8, targets=["q_proj", "down_proj"])


def lora_params(**more) -> OptimizerSection:
    return OptimizerSection(**{**SMALL, "lora": {"rank": 4, "alpha": 8, "targets": ["q_proj", "down_proj"]}, **more})


@pytest.mark.parametrize("tied", [True, False])
def test_the_merged_model_is_the_one_with_adapters_and_loads_as_an_ordinary_folder(tmp_path, tied):
    model = tiny_model(len(tiny_tokenizer()), tied=tied)
    lora = add_lora(model, SECTION, IDS)
    with torch.no_grad():
        for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
            parameter.add_(torch.randn_like(parameter) * 0.2)
    ids = torch.randint(2, 60, (3, 12), generator=torch.Generator().manual_seed(1))
    with_adapters = model.eval()(input_ids=ids).logits
    merge_lora(lora)
    assert torch.allclose(model(input_ids=ids).logits, with_adapters, atol=2e-5)
    assert all(parameter.requires_grad for parameter in model.parameters()) and not hasattr(model, "peft_config")

    save_model(model, tiny_tokenizer(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    assert not list(tmp_path.glob("adapter*")) and not [name for name in load_file(tmp_path / "model.safetensors") if "lora" in name]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.allclose(loaded(input_ids=ids).logits, with_adapters, atol=2e-5) and loaded.config.tie_word_embeddings is tied


def moved(before, after) -> dict[str, torch.Tensor]:
    return {name: (before[name] - after[name]).abs() for name in before}


@pytest.mark.parametrize("tied", [True, False])
def test_targets_and_the_rows_of_the_tokens_learn_and_nothing_else(tied):
    model = tiny_model(VOCABULARY, tied=tied)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = uneven_rows(6)
    ids = sorted({rows[0].ids[1], rows[1].ids[2], 63})
    curve = train_supervised(model, rows, lora_params(steps=3, batch_size=2), PAD, token_ids=ids)
    assert len(curve) == 3 and not model.training
    for name, distance in moved(before, model.state_dict()).items():
        if "embed_tokens" in name or "lm_head" in name:
            changed = distance.sum(dim=1).nonzero()[:, 0].tolist()
            assert changed == ids, name
        else:
            assert bool(distance.any()) == ("q_proj" in name or "down_proj" in name), name


def test_rows_of_tokens_stay_where_they_are_not_asked_for():
    model = tiny_model(VOCABULARY)
    before = model.get_input_embeddings().weight.detach().clone()
    train_supervised(model, uneven_rows(2), lora_params(lora=SECTION.model_copy(update={"token_rows": False})), PAD, token_ids=IDS)
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_chunks_of_logits_and_checkpoints_of_activations_learn_the_same():
    def weights(**more):
        model = tiny_model(VOCABULARY)
        train_supervised(model, uneven_rows(2), lora_params(**more), PAD, token_ids=IDS)
        return model.state_dict()

    plain, other = weights(), weights(loss_chunk=5, gradient_checkpointing=True)
    assert all(torch.allclose(plain[name], other[name], atol=1e-3) for name in plain)


def test_two_processes_learn_as_one(tmp_path):
    more = {"loss_mean": "step", "lora": SECTION.model_dump()}
    whole = trained(OptimizerSection(**{**SMALL, **more, "batch_size": 2}), 4)
    halves = run(tmp_path, 2, 4, **more)
    assert [row["loss"] for row in halves[1]] == pytest.approx([row["loss"] for row in whole[1]], rel=1e-4)
    assert all(torch.allclose(whole[0][name], tensor, atol=2e-3) for name, tensor in halves[0].items())


def test_the_rows_are_those_of_sids_and_layout_tokens():
    tokenizer = tiny_tokenizer()
    tokens = [tokenizer.convert_ids_to_tokens(index) for index in sid_and_layout_ids(tokenizer)]
    assert len(tokens) == 2 + LEVELS * CODEBOOK + 6 and {"<|sid_begin|>", "<s_a_0>", "<s_d_7>", "<think>", "<|pad|>"} <= set(tokens)


def test_a_target_that_the_model_lacks_is_named():
    with pytest.raises(StageError, match=r"lora\.targets: LlamaForCausalLM has no linear layer 'c_attn'; it has \["):
        add_lora(tiny_model(VOCABULARY), LoraSection(rank=2, targets=["q_proj", "c_attn"]), IDS)


def test_muon_and_adapters_do_not_go_together():
    with pytest.raises(ValueError, match=r"with lora\.rank set it to adamw"):
        lora_params(optimizer="muon")
