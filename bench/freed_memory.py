"""What it is worth that training keeps the memory it frees (stages/shared/training/heap.py): steps with and without, in turns.

    python bench/freed_memory.py [--hidden 192] [--layers 3] [--rows 32] [--row-length 192] [--steps 20] [--pairs 3] [--name freed_memory]

Each side is a process of one thread that trains a random decoder of the default's form (midtrain.hidden and so on) on random tokens in
bfloat16. Prints and writes bench/results/NAME.md: seconds a step (median over the processes), seconds of a step in the kernel,
and the largest memory; that both sides end with the same weights is checked.
"""

import argparse
import contextlib
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import Qwen2Config, Qwen2ForCausalLM

from stages.shared.training.heap import freed_memory_kept

RESULTS = Path(__file__).resolve().parent / "results"
VOCABULARY = 1280
WARM = 3  # steps that are not counted


def train(options: argparse.Namespace) -> dict[str, Any]:
    """In this process: seconds and kernel seconds a step, the largest resident memory in MB, a digest of the weights."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    heads = max(1, options.hidden // 64)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 8 // 3,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rows = torch.randint(0, VOCABULARY, (options.rows, options.row_length))
    for step in range(WARM + options.steps):
        if step == WARM:
            began, kernel = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_stime
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(rows).logits
        cross_entropy(logits[:, :-1].flatten(0, 1).float(), rows[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    digest = hashlib.sha256(b"".join(weight.detach().numpy().tobytes() for weight in model.parameters())).hexdigest()
    seconds, in_kernel = time.perf_counter() - began, usage.ru_stime - kernel
    return {"seconds": seconds / options.steps, "kernel": in_kernel / options.steps, "memory": usage.ru_maxrss / 1024, "digest": digest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"hidden": 192, "layers": 3, "rows": 32, "row-length": 192, "steps": 20, "pairs": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--name", default="freed_memory", help="of the file in bench/results")
    parser.add_argument("--side", choices=["kept", "returned"], help=argparse.SUPPRESS)  # what the script calls itself with
    options = parser.parse_args()
    if options.side:
        with freed_memory_kept() if options.side == "kept" else contextlib.nullcontext(True) as kept:
            if not kept:
                sys.exit("the C library of this machine has no mallopt: nothing to measure")
            print(json.dumps(train(options)))
        return
    found: dict[str, list[dict[str, Any]]] = {"returned": [], "kept": []}
    for pair in range(options.pairs):
        for side in sorted(found, reverse=bool(pair % 2)):  # neither is always the one that finds a warm machine
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            found[side].append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    if len({run["digest"] for runs in found.values() for run in runs}) > 1:
        sys.exit("the two sides did not end with the same weights")
    lines = ["| freed memory | seconds a step | of it in the kernel | largest memory, MB |", "|---|---|---|---|"]
    for side, runs in found.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in ("seconds", "kernel", "memory")}
        lines.append(f"| {side} | {middle['seconds']:.3f} | {middle['kernel']:.3f} | {middle['memory']:,.0f} |")
    ratios = [plain["seconds"] / kept["seconds"] for plain, kept in zip(found["returned"], found["kept"], strict=True)]
    lines += ["", f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} pairs)."]
    print("\n".join(lines))
    head = ["# Memory that training frees: kept, or given back to the kernel", "", f"`python {' '.join(sys.argv)}`", ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.name}.md").write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
