"""gr2 doctor's formulas: against a Qwen3 counted by hand, and against what training really allocates."""

import json
import tracemalloc

import numpy as np
import pytest
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from stages.midtrain.decoder import scratch_model
from stages.midtrain.params import MidtrainParams
from stages.shared.core.device import multiplies_in
from stages.shared.core.errors import StageError
from stages.shared.lm.encoding import WeightedExample, pack
from stages.shared.lm.models import save_model
from stages.shared.training.params import LoraSection, OptimizerSection
from stages.tools.memory.formulas import Sharding, Training, activations, generation, logits, weights_and_optimizer
from stages.tools.memory.learning import Learning, learning, with_adapters
from stages.tools.memory.shapes import Shape, from_config
from stages.tools.memory.training import TOKEN_BYTES
from tests.support.tiny_models import tiny_tokenizer
from tests.support.training_memory import TOKEN_IDS, measured, measured_shares
from tests.support.training_run import SMALL

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# 5 heads of 8 on a width of 32: as in Qwen3-32B, the heads together are not the width.
VALUES = {"model_type": "qwen3", "vocab_size": 704, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
          "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 8, "tie_word_embeddings": False}  # fmt: skip
# 7 matrices: q 32 x 40, k and v 32 x 8, o 40 x 32, gate, up and down 32 x 48; norms: 2 of 32, 2 of 8
LAYER = 1280 + 256 + 256 + 1280 + 3 * 1536 + 64 + 16
ADAPTERS = (32 + 40) + 2 * (32 + 8) + (40 + 32) + 3 * (32 + 48)  # inputs and outputs of the seven, each times the rank


def qwen3(tied: bool = False) -> tuple[Shape, PreTrainedModel]:
    values = VALUES | {"tie_word_embeddings": tied}
    more = {"max_position_embeddings": 256, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    return from_config(values), Qwen3ForCausalLM(Qwen3Config(**values, **more))


def section(**more) -> OptimizerSection:
    return OptimizerSection(**{**SMALL, "steps": 1, **more})


def test_a_qwen3_counted_by_hand():
    shape, model = qwen3()
    assert shape.parameters == 2 * 704 * 32 + 3 * LAYER + 32 == 68_368 == model.num_parameters()
    assert shape.matrices == 3 * (LAYER - 80) and qwen3(tied=True)[0].parameters == 68_368 - 704 * 32
    assert with_adapters(shape, LoraSection(rank=4, targets=ALL), token_rows=0) == Learning(68_368 + 3 * 4 * ADAPTERS, 3 * 4 * ADAPTERS)
    rows = 10 * 32 * 2  # ten, in the embedding and in the head
    few = LoraSection(rank=2, targets=["q_proj", "down_proj"])
    trained = 3 * 2 * (72 + 80) + rows
    assert with_adapters(shape, few, token_rows=10) == Learning(68_368 + trained + rows, trained, merged=704 * 32)
    assert with_adapters(shape, few.model_copy(update={"token_rows": False}), 10).merged == 0


def test_bytes_counted_by_hand():
    """Of 1,000 numbers, 100 of which learn, in eight processes: bfloat16 under ZeRO-3 and ZeRO-2, float32 under ZeRO-2, and without."""
    model = Learning(1000, 100)
    three = weights_and_optimizer(model, Sharding(8, 3, live=600, bucket=50, step=1e9), bfloat16=True, keeps_float32=False)
    assert three.kept == {"weights": 2 * 1000 / 8, "gradients": 2 * 100 / 8, "optimizer": 12 * 100 / 8}
    assert three.backward["gathered weights"] == 2 * 600 and three.backward["gradient buckets"] == 2 * 50
    assert three.step == {"gradients of the step": 4 * 100 / 8}
    two = weights_and_optimizer(model, Sharding(8, 2), bfloat16=True, keeps_float32=False)
    assert two.kept == {"weights": 2 * 1000, "gradients": 2 * 100 / 8, "optimizer": 12 * 100 / 8} and sum(two.step.values()) == 6 * 100 / 8
    sampling = weights_and_optimizer(model, Sharding(8, 2), bfloat16=True, keeps_float32=True)
    assert sampling.kept["weights"] == 4 * 1000 and sampling.backward["bfloat16 copies"] == 2 * 1000
    plain = weights_and_optimizer(model, Sharding(8), bfloat16=False, keeps_float32=False)
    assert plain.kept == {"weights": 4 * 1000, "gradients": 4 * 100, "optimizer": 8 * 100} and plain.backward["gradient buckets"] == 400


def test_deepspeeds_options_are_read(tmp_path):
    path = tmp_path / "zero.json"
    options = {"stage": 3, "stage3_max_live_parameters": 7, "reduce_bucket_size": "auto", "offload_optimizer": {"device": "cpu"}}
    path.write_text(json.dumps({"zero_optimization": options}))
    assert Sharding.of(4, str(path)) == Sharding(4, 3, offloaded=True, live=7, bucket=5e8)
    path.write_text(json.dumps({"zero_optimization": {"stage": 2, "reduce_bucket_size": 10, "overlap_comm": True}}))
    assert Sharding.of(4, str(path)) == Sharding(4, 2, bucket=20), "it reduces one bucket while it fills the other"
    assert Sharding.of(4, "infra/deepspeed/zero3.json") == Sharding(4, 3) and Sharding.of(2, "") == Sharding(2)


def test_checkpointing_keeps_the_inputs_of_layers_and_a_chunk_bounds_the_logits():
    shape = from_config({"model_type": "llama", "vocab_size": 100, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 4,
                         "num_attention_heads": 2, "num_key_value_heads": 1})  # fmt: skip
    assert shape.head_dim == 4 and not shape.tied
    saved, whole = (activations(shape, 10, checkpointing) for checkpointing in (True, False))
    assert whole == 10 * 4 * shape.layer_bytes() and saved == 10 * (2 * 8 * 4 + shape.layer_bytes())
    assert logits(shape, 500, 50) * 10 == logits(shape, 500) and logits(shape, 20, 50) == logits(shape, 20)
    assert generation(shape, "bfloat16", 3, 7)["key-value cache"] == 3 * 7 * 2 * 4 * 1 * 4 * 2


def estimated(shape: Shape, params: OptimizerSection) -> Training:
    sharding, bfloat16 = Sharding.of(params.all_processes, params.deepspeed), params.precision == "bfloat16"
    return weights_and_optimizer(learning(shape, params, len(TOKEN_IDS)), sharding, bfloat16, keeps_float32=False)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [{}, {"rank": 4, "targets": ALL}, {"rank": 4, "targets": ["q_proj"], "token_rows": False}])
def test_one_process_allocates_what_was_estimated(tied, lora):
    shape, model = qwen3(tied)
    params = section(lora=lora)
    assert measured(model, params) == estimated(shape, params).kept


def test_muon_keeps_one_moment_of_a_matrix():
    params = MidtrainParams(hidden=32, layers=2, heads=2, intermediate=48, optimizer="muon", **{**SMALL, "steps": 1})
    model = scratch_model(params, tiny_tokenizer())
    shape = Shape("qwen2", model.config.vocab_size, 0, 32, 48, 2, 2, 2, 16, True)
    assert shape.parameters == model.num_parameters()
    assert measured(model, params) == estimated(shape, params).kept


@pytest.mark.slow
@pytest.mark.skipif(
    not multiplies_in("bfloat16"), reason="this CPU computes in float32, of which DeepSpeed keeps one copy more than is estimated"
)
def test_two_processes_share_what_was_estimated(tmp_path):
    """Read under zero.Init as bfloat16. A share is rounded up to whole numbers, tensor by tensor; small tensors too are shared out here."""
    shape, model = qwen3()
    save_model(model, tiny_tokenizer(), tmp_path / "model")
    lora = {"rank": 4, "targets": ALL}
    zero = {"stage": 3, "contiguous_gradients": True, "stage3_param_persistence_threshold": 0}
    config = {"train_micro_batch_size_per_gpu": "auto", "bf16": {"enabled": "auto"}, "zero_optimization": zero,
              "optimizer": {"type": "AdamW", "params": {"lr": "auto", "torch_adam": True}}}  # fmt: skip
    (tmp_path / "zero.json").write_text(json.dumps(config))
    params = section(lora=lora, deepspeed=str(tmp_path / "zero.json"), precision="bfloat16", processes=2)
    expected = estimated(shape, params).kept
    for shares in measured_shares(tmp_path, 2, lora=lora, deepspeed=params.deepspeed, precision="bfloat16"):
        assert shares == pytest.approx(expected, rel=0.01)


def test_a_token_of_a_training_row_takes_what_was_estimated():
    drawn = np.random.default_rng(0).integers(257, 49_000, (300, 40))  # Python shares integers below 257
    tracemalloc.start()
    rows = pack([WeightedExample([int(index) for index in ids], [1.0] * len(ids)) for ids in drawn], 1000)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held / sum(len(row.ids) for row in rows) == pytest.approx(TOKEN_BYTES, rel=0.1)


def test_a_target_that_the_model_lacks_is_named():
    with pytest.raises(StageError, match=r"lora\.targets: qwen3 has no linear layer 'c_attn'; it has \["):
        with_adapters(qwen3()[0], LoraSection(rank=2, targets=["c_attn"]), 0)
