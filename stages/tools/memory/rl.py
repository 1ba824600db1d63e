"""What reinforcement learning takes: the policy, its rollouts, and a reference for the KL."""

import math

from stages.rl.params import RlParams
from stages.tools.check_params import Params
from stages.tools.memory.formulas import WIDTH, Bytes, Sharding, activations, generation, logits
from stages.tools.memory.learning import whole, with_adapters
from stages.tools.memory.shapes import Shape, layout_tokens
from stages.tools.memory.stage import CONTEXT, GB, LIBRARIES, Sizes, StageMemory
from stages.tools.memory.training import models_read, of_training, place, stored


def rl_memory(memory: StageMemory, shape: Shape, params: Params, sizes: Sizes) -> None:
    rl = params.rl
    sharding, bfloat16 = Sharding.of(rl.all_processes, rl.deepspeed), rl.precision == "bfloat16"
    tokens, written = of_a_pass(rl, sizes)
    made = {"activations": activations(shape, tokens, rl.gradient_checkpointing, bfloat16)}
    made["logits"] = logits(shape, written, rl.logprob_chunk)
    token_rows = layout_tokens(params.tokenize.levels, params.tokenize.codebook_size)
    model = with_adapters(shape, rl.lora, token_rows) if rl.lora.rank else whole(shape)

    engine = rollout_engine(shape, rl, sizes) if rl.rollout.beside else {}
    # An engine sleeps while the policy learns, but for one that draws ahead, and on a CPU nothing sleeps.
    stays = rl.rollout.ahead or not memory.gpus
    sampling = in_place(shape, rl, sizes, sharding) if not rl.rollout.beside else {} if stays else engine
    kept: Bytes = engine if stays else {}
    if rl.kl:
        kept = {**kept, "reference": float(WIDTH[rl.precision] * shape.parameters)}
    if memory.gpus and rl.rollout.beside:
        kept = {**kept, "engine's context": CONTEXT}
    place(memory, rl, sharding, of_training(model, sharding, bfloat16, True, made, sampling, on_gpu=bool(memory.gpus)) | kept)

    host = memory.host
    if rl.rollout.beside:
        host["engines' libraries"] = rl.processes * LIBRARIES / GB
        host["weights for the engines"] = WIDTH[rl.rollout.dtype] * shape.parameters / GB  # once for all (rl/engines/memory_file.py)
    if sharding.stage == 3:
        host["the whole model, to be saved"] = 4.0 * shape.parameters / GB
    elif memory.gpus:
        host["models as they are read"] = models_read(shape, rl.processes, stored("rl", shape, params)) / GB


def of_a_pass(rl: RlParams, sizes: Sizes) -> tuple[int, int]:
    """Tokens of an update's largest forward pass, and of them those that the loss counts: rl.micro_prompts groups, or ReLIFT's traces."""
    answers = largest_group(rl)
    written = rl.micro_prompts * answers * rl.max_tokens
    tokens = rl.micro_prompts * sizes.prompt * (answers if rl.shared_prefix == "none" else 1) + written
    traces = math.ceil(rl.allocation.relift_batch / math.ceil(rl.prompts / rl.micro_prompts))
    return max(tokens, traces * sizes.row), max(written, traces * sizes.trace)


def largest_group(rl: RlParams) -> int:
    """Answers to one slate that an update learns from, at the most: every group of a pass may be one that Knapsack gave most."""
    allocation = rl.allocation
    answers = round(allocation.prof_share * max(rl.group, allocation.knapsack_most))
    # Chosen across groups, or when the share has risen, D3S leaves some whole.
    return answers if allocation.d3s_across or allocation.d3s_relax else round(allocation.d3s_share * answers)


def in_place(shape: Shape, rl: RlParams, sizes: Sizes, sharding: Sharding) -> Bytes:
    """Of transformers on the policy's own weights, which are float32."""
    sampler = generation(shape, "float32", rl.batch_size, sizes.prompt + rl.max_tokens)
    gathered = {"whole weights, to sample": sampler["weights"]} if sharding.stage == 3 else {}
    return {**gathered, "sampling's cache": sampler["key-value cache"]}


def rollout_engine(shape: Shape, rl: RlParams, sizes: Sizes) -> Bytes:
    """Of the process beside a training process, while it is awake."""
    parts = generation(shape, rl.rollout.dtype, rl.batch_size, sizes.prompt + rl.max_tokens)
    cache = rl.rollout.kv_cache_gb * GB if rl.rollout.engine == "vllm" else parts["key-value cache"]
    return {"engine's weights": parts["weights"], "engine's cache": cache}
