"""The training phase of an RL step, forward pass to optimizer step, beside TRL's GRPOTrainer: time, memory and arithmetic.

    python bench/rl_step.py FOLDER [--settings float32 checkpointing bfloat16 lora all all_float32 zero3 zero3_float32]
        [--sides tree cache none trl] [--repeats 3] [--rollouts]

FOLDER: for the model that both sides start from, a random Qwen3 made on the spot. Both get the same prompts, answers and advantages, DAPO's
loss, AdamW, and one group a pass; `all` is checkpointing, bfloat16 and adapters, `zero3` these on a DeepSpeed engine of one process with
infra/deepspeed/zero3.json, and both `_float32` are without bfloat16, for a CPU that has no kernels for it: there the project computes in
float32 by itself and TRL does not, so the other settings compare two precisions. Every measurement is a process of its own, and the sides
take turns. The second step of each is timed.
Prints and writes --result:

- seconds, and how many times TRL's the speed is, in pairs of neighbouring processes;
- memory: of the step's peak what the process did not have before the first one (resident; on a GPU what torch allocated, all of it);
- floating-point operations as torch.utils.flop_counter counts them, attention as whole rectangles of queries and keys, against the least
  possible: each token once, logits of answers alone, attention where a token looks, nothing recomputed, no gradient of a frozen weight;
- with --rollouts the seconds in which each side draws as many answers of as many tokens, both with transformers on the policy's own
  weights, and how many times TRL's the speed of the whole step is, rollouts and training.

Runs on a GPU where torch sees one.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from one_process import alone

from stages.shared.core.run import importing

with importing():
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
    from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

    from stages.midtrain.vocabulary import learn_tokenizer
    from stages.rl.objectives.dapo import dapo
    from stages.rl.objectives.parts import Part, Whole
    from stages.rl.params import RlParams
    from stages.rl.policy import open_policy
    from stages.shared.core.launch import without_compiled_collectives
    from stages.shared.generation.base import Sampling
    from stages.shared.generation.transformers_engine import TransformersEngine
    from stages.shared.lm.models import extend_vocabulary, load_model, load_tokenizer, save_model

RESULT = Path(__file__).resolve().parent / "results/rl_step.md"
SETTINGS: dict[str, dict[str, bool]] = {
    "float32": {},
    "checkpointing": {"checkpointing": True},
    "bfloat16": {"bfloat16": True},
    "lora": {"lora": True},
    "all": {"checkpointing": True, "bfloat16": True, "lora": True},
    "all_float32": {"checkpointing": True, "lora": True},
    "zero3": {"checkpointing": True, "bfloat16": True, "lora": True, "zero3": True},
    "zero3_float32": {"checkpointing": True, "lora": True, "zero3": True},
}
ZERO_3 = str(Path(__file__).resolve().parents[1] / "infra/deepspeed/zero3.json")
LOW, HIGH, LR, CHUNK = 0.2, 0.28, 1e-5, 256
LORA_RANK, LORA_ALPHA = 16, 32
NEVER = -1  # no token ends an answer
Draw = Callable[[int], None]  # rollouts of so many tokens each
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
aten = torch.ops.aten
# What torch counts for its kernels on a GPU, for those on a CPU.
ON_CPU: dict[Any, Any] = {
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *rest, **more: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *rest, **more: sdpa_backward_flop_count(grad, q, k, v),
}


def make_model(folder: Path, options: argparse.Namespace) -> None:
    tokenizer = learn_tokenizer([], 512, ["history:"])
    extend_vocabulary(tokenizer, 4, 256)
    config = Qwen3Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=max(32, options.hidden // 4),
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    save_model(Qwen3ForCausalLM(config), tokenizer, folder)


class Batch:
    """`groups` prompts of `prompt` tokens, each with `group` answers of `answer` tokens (less `uneven` a place), and advantages."""

    def __init__(self, asked: dict[str, Any], vocabulary: int):
        draw = torch.Generator().manual_seed(asked["seed"])
        ids = lambda length: torch.randint(2, vocabulary, (length,), generator=draw).tolist()  # noqa: E731
        own = [max(1, asked["answer"] - asked["uneven"] * place) for place in range(asked["group"])]
        lengths = [own] * asked["groups"]
        self.prompts = [ids(asked["prompt"]) for _ in lengths]
        self.responses = [[ids(length) for length in own] for own in lengths]
        self.advantages = torch.randn(asked["groups"], asked["group"], generator=draw)
        self.tokens = float(sum(map(sum, lengths)))


def our_step(model: PreTrainedModel, batch: Batch, asked: dict[str, Any], pad_id: int) -> tuple[Callable[[], None], Draw]:
    params = RlParams.model_validate(
        {
            "lr": LR,
            "clip_low": LOW,
            "clip_high": HIGH,
            "prompts": asked["groups"],
            "group": asked["group"],
            "micro_prompts": 1,
            "shared_prefix": asked["side"],
            "logprob_chunk": 0 if asked["side"] == "cache" else CHUNK,
            "gradient_checkpointing": asked.get("checkpointing", False),
            "precision": "bfloat16" if asked.get("bfloat16") else "float32",
            "lora": {"rank": LORA_RANK, "alpha": LORA_ALPHA, "token_rows": False} if asked.get("lora") else {},
            "deepspeed": ZERO_3 if asked.get("zero3") else "",
        }
    )
    policy = open_policy(model, params)
    policy.module.train()

    def step() -> None:
        for prompt, own, gains in zip(batch.prompts, batch.responses, batch.advantages, strict=True):
            logp, mask, *_ = policy.score([prompt], [own], pad_id)
            own_gains = gains.to(logp.device)
            part = Part(logp, logp.detach(), mask, own_gains, own_gains, own_gains > 0)
            loss = dapo(part, Whole(batch.tokens, float(batch.advantages.numel())), params)
            policy.backward(loss.value * asked["groups"])
        policy.step()

    step()
    if policy.form != asked["side"]:
        raise SystemExit(f"rl_step: {asked['side']} was left for {policy.form}; there is nothing to measure")
    engine = TransformersEngine(policy.module, pad_id, NEVER, asked["groups"] * asked["group"])

    def draw(tokens: int) -> None:
        with policy.sampling():
            engine.generate(batch.prompts, Sampling(tokens, 1.0, samples=asked["group"], seed=asked["seed"]))

    return step, draw


def trl_step(model: PreTrainedModel, batch: Batch, asked: dict[str, Any], folder: Path) -> tuple[Callable[[], None], Draw]:
    with importing():
        from datasets import Dataset
        from peft import LoraConfig, get_peft_model
        from transformers.integrations.deepspeed import deepspeed_init
        from trl import GRPOConfig, GRPOTrainer

    zero3 = asked.get("zero3", False)
    if asked.get("lora"):  # before the arguments, which tell transformers of ZeRO-3: peft would then look for a GPU
        model = get_peft_model(model, LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=RlParams().lora.targets))  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = GRPOConfig(
            output_dir=scratch,
            loss_type="dapo",
            epsilon=LOW,
            epsilon_high=HIGH,
            beta=0.0,
            num_generations=asked["group"],
            per_device_train_batch_size=asked["group"],
            gradient_accumulation_steps=asked["groups"],
            max_completion_length=asked["answer"],
            gradient_checkpointing=asked.get("checkpointing", False),
            gradient_checkpointing_kwargs={"use_reentrant": False} if asked.get("checkpointing") else None,
            use_cpu=DEVICE == "cpu",
            bf16=asked.get("bfloat16", False),
            learning_rate=LR,
            deepspeed=ZERO_3 if zero3 else None,
            report_to=[],
        )
        trainer: Any = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": ["a"] * asked["group"]}),
            processing_class=load_tokenizer(folder),
        )
    trainer.current_gradient_accumulation_steps = asked["groups"]
    learner = trainer.model.to(DEVICE).train()
    if asked.get("checkpointing"):  # as Trainer.train() does at its start
        learner.gradient_checkpointing_enable({"use_reentrant": False})
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=LR, weight_decay=0.0)
    if zero3:  # as Trainer.train() does at its start
        trainer.optimizer, trainer.lr_scheduler = deepspeed_init(trainer, num_training_steps=4)
        learner, *_ = trainer.accelerator.prepare(trainer.model, trainer.optimizer, trainer.lr_scheduler)
        trainer.model_wrapped = trainer.deepspeed = learner

    def step() -> None:
        for number, (prompt, own, gains) in enumerate(zip(batch.prompts, batch.responses, batch.advantages, strict=True), 1):
            width = max(map(len, own))
            inputs = {
                "prompt_ids": torch.tensor([prompt] * len(own), device=DEVICE),
                "prompt_mask": torch.ones(len(own), len(prompt), dtype=torch.long, device=DEVICE),
                "completion_ids": torch.tensor([r + [0] * (width - len(r)) for r in own], device=DEVICE),
                "completion_mask": torch.tensor([[1] * len(r) + [0] * (width - len(r)) for r in own], device=DEVICE),
                "advantages": gains.to(DEVICE),
                "num_items_in_batch": torch.tensor(batch.tokens, device=DEVICE),
            }
            trainer.accelerator.gradient_state._set_sync_gradients(number == len(batch.prompts))  # the engine steps at the last
            trainer.accelerator.backward(trainer._compute_loss(learner, inputs))
        if zero3:
            return
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def draw(tokens: int) -> None:
        trainer.generation_config.max_new_tokens = trainer.generation_config.min_new_tokens = tokens
        rows = [prompt for prompt in batch.prompts for _ in range(asked["group"])]
        answers, _ = trainer._generate_single_turn(rows, None, {}, asked["group"])
        assert all(len(answer) == tokens for answer in answers)

    step()
    return step, draw


def least_flops(model: PreTrainedModel, batch: Batch, lora: bool) -> float:
    config = model.config
    counts = [(len(prompt), [len(response) for response in own]) for prompt, own in zip(batch.prompts, batch.responses, strict=True)]
    tokens, answers = sum(p + sum(own) for p, own in counts), sum(sum(own) for _, own in counts)
    pairs = sum(p * (p + 1) / 2 + sum(a * p + a * (a + 1) / 2 for a in own) for p, own in counts)
    layers = sum(p.numel() for name, p in model.named_parameters() if "layers" in name and p.dim() == 2)
    products = 2.0 * layers * tokens + 2.0 * config.hidden_size * config.vocab_size * answers
    attention = 4.0 * config.num_attention_heads * config.head_dim * config.num_hidden_layers * pairs
    # Backwards: a product for the inputs, and one for the weights where they learn.
    return (2.0 if lora else 3.0) * products + 3.0 * attention


def resident_bytes() -> float:
    return float(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(asked: dict[str, Any], folder: Path) -> dict[str, float]:
    torch.set_num_threads(asked["threads"])
    model = load_model(folder, device=DEVICE)
    batch = Batch(asked, model.config.vocab_size)
    least = least_flops(model, batch, asked.get("lora", False))
    # What is imported is none of the step's memory.
    if asked["side"] == "trl":
        with importing():
            import trl  # noqa: F401
    if asked.get("zero3"):
        without_compiled_collectives()
        os.environ.update(alone())
    before = resident_bytes()
    pad_id = int(model.config.pad_token_id)
    step, draw = trl_step(model, batch, asked, folder) if asked["side"] == "trl" else our_step(model, batch, asked, pad_id)
    _wait()
    began = time.perf_counter()
    step()
    _wait()
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    with FlopCounterMode(display=False, custom_mapping=ON_CPU) as counter:
        step()
    found = {"seconds": seconds, "bytes": float(peak), "flops": float(counter.get_total_flops()), "least": least}
    if asked["rollouts"]:
        draw(2)
        _wait()
        began = time.perf_counter()
        draw(asked["answer"])
        _wait()
        found["rollouts"] = time.perf_counter() - began
    return found


def _wait() -> None:
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def in_a_process(asked: dict[str, Any], folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, str(folder), "--measure", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"rl_step: {asked}: {done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows_of(setting: str, prompt: int, options: argparse.Namespace) -> list[str]:
    sides = [side for side in options.sides if side != "cache" or not SETTINGS[setting].get("checkpointing")]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    common = {name: getattr(options, name) for name in ("group", "groups", "answer", "uneven", "threads", "rollouts")}
    for repeat in range(options.repeats):
        for side in sides if repeat % 2 == 0 else reversed(sides):
            found[side].append(
                in_a_process({**common, **SETTINGS[setting], "side": side, "prompt": prompt, "seed": repeat}, options.folder)
            )
    rows = []
    for side in sides:
        seconds, memory = ([one[key] for one in found[side]] for key in ("seconds", "bytes"))
        times = times_trl(found[side], found.get("trl", []), ["seconds"])
        flops, least = found[side][0]["flops"], found[side][0]["least"]
        rows.append(
            f"| {setting} | {prompt:,} | {side} | {statistics.median(seconds):.3f} | {times} | {statistics.median(memory) / 2**20:,.0f} | "
            f"{flops / 1e9:,.1f} | {flops / least:.2f} |"
        )
        if options.rollouts:
            drawn = statistics.median(one["rollouts"] for one in found[side])
            rows[-1] += f" {drawn:.3f} | {times_trl(found[side], found.get('trl', []), ['seconds', 'rollouts'])} |"
    return rows


def times_trl(own: list[dict[str, float]], trl: list[dict[str, float]], parts: list[str]) -> str:
    """How many times TRL's the speed in these seconds is, in pairs of neighbouring processes: median, least and greatest."""
    faster = [sum(other[part] for part in parts) / sum(one[part] for part in parts) for one, other in zip(own, trl, strict=False)]
    return f"{statistics.median(faster):.2f} ({min(faster):.2f} to {max(faster):.2f})" if faster else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--sides", nargs="+", choices=("tree", "cache", "none", "trl"), default=["tree", "cache", "trl"])
    parser.add_argument("--prompts", nargs="+", type=int, default=[400, 2200], help="lengths in tokens")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--groups", type=int, default=2, help="of a step")
    parser.add_argument("--answer", type=int, default=150, help="tokens")
    parser.add_argument("--uneven", type=int, default=0, help="tokens by which an answer is shorter than the one before")
    parser.add_argument("--rollouts", action="store_true", help="draw answers, too")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    model_folder = options.folder / "model"
    if options.measure:
        print(json.dumps(measure(json.loads(options.measure), model_folder)))
        return
    make_model(model_folder, options)
    parameters = load_model(model_folder).num_parameters()
    machine = torch.cuda.get_device_name() if DEVICE == "cuda" else f"{options.threads} CPU threads"
    words = " ".join(["FOLDER", *sys.argv[2:]])
    lines = [
        "# The training phase of an RL step\n",
        f"`python bench/rl_step.py {words}`; {parameters / 1e6:.1f}M parameters, {options.groups} groups of {options.group} answers of "
        f"{options.answer} tokens, medians of {options.repeats}; {machine}\n",
        "| setting | prompt | side | seconds | times TRL's speed | memory, MiB | GFLOP | of the least |",
        "|---|---|---|---|---|---|---|---|",
    ]
    if options.rollouts:
        lines[-2:] = [f"{lines[-2]} rollouts, seconds | whole step, times TRL's speed |", f"{lines[-1]}---|---|"]
    print("\n".join(lines), flush=True)
    for setting in options.settings:
        for prompt in options.prompts:
            rows = rows_of(setting, prompt, options)
            lines += rows
            # As they come: a setting takes many minutes, and what is measured stays if the next one is stopped.
            print("\n".join(rows), flush=True)
            options.result.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
