"""What mid-training of a random Qwen3 under ZeRO-3 takes of a GPU, beside what `gr2 doctor` says before.

    gr2 run --until tokenize --profile qwen3-8b      # once, in a clone: PROJECT
    python bench/zero3_memory.py FOLDER --project PROJECT [--steps 10] [--batch-size 4] [--row-length 2048] [--layers 28]

The model has the dimensions of Qwen3-0.6B (its config.json) and random weights, written to FOLDER/model; the tokenizer is that of
infra/models/smollm2-135m, so that most of its 151,936 rows have no token. One process, the stage's own command with infra/deepspeed/
zero3.json, bfloat16, gradient checkpointing and the head in chunks. Prints and writes bench/results/zero3_memory.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml
from one_process import alone
from transformers import Qwen3Config, Qwen3ForCausalLM

from stages.midtrain.__main__ import load
from stages.midtrain.params import MidtrainParams
from stages.shared.core.params import section_of
from stages.shared.core.run import run_stage
from stages.shared.lm.models import load_tokenizer, save_model
from stages.shared.lm.packaged import packaged_model
from stages.tools.check_params import Params
from stages.tools.memory.estimate import GB, estimate

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench/results/zero3_memory.md"
ROWS = 151_936
MEASURED = "memory.json"


def write_model(folder: Path, layers: int, hidden: int) -> int:
    """The number of its parameters."""
    tokenizer = load_tokenizer(packaged_model("smollm2-135m"))
    config = Qwen3Config(
        vocab_size=ROWS,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen3ForCausalLM(config).to(torch.bfloat16)  # type: ignore[arg-type]
    save_model(model, tokenizer, folder)
    return int(model.num_parameters())


def stage() -> None:
    """The stage in this process, as torchrun would start it; what it took at most is written beside its outputs."""
    started = time.monotonic()
    run_stage("midtrain", MidtrainParams, load)
    peak = {"seconds": time.monotonic() - started}
    if torch.cuda.is_available():
        peak |= {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    Path(MEASURED).write_text(json.dumps(peak), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--project", type=Path, default=Path(), help="with data/ingest and data/tokenize; its params.yaml counts")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--row-length", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--stage", action="store_true", help=argparse.SUPPRESS)  # what the script calls itself with
    options = parser.parse_args()
    if options.stage:
        return stage()
    if not options.folder:
        parser.error("FOLDER is missing")
    folder, project = options.folder.resolve(), options.project.resolve()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name in ("data/ingest", "data/tokenize", "infra"):
        if not (folder / name).exists():
            (folder / name).symlink_to((ROOT if name == "infra" else project) / name)
    parameters = write_model(folder / "model", options.layers, options.hidden)
    document = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    document["midtrain"] |= {
        "model": str(folder / "model"),
        "steps": options.steps,
        "batch_size": options.batch_size,
        "row_length": options.row_length,
        "max_length": max(options.row_length, document["midtrain"]["max_length"]),
        "accumulate": 1,
        "processes": 1,
        "nodes": 1,
        "deepspeed": "infra/deepspeed/zero3.json",
        "precision": "bfloat16",
        "gradient_checkpointing": True,
        "loss_chunk": 1024,
        "optimizer": "adamw",
        "lr": 1e-5,
        "log_every": 1,
        "probe_users": 0,
        "lora": {"rank": 0},
        "save_steps": 0,
        "validate_steps": 0,
        "new_rows_lr": 0.0,
    }
    document["resources"]["midtrain"] = {"cpus": 1, "gpus": 1, "memory_gb": 64}
    (folder / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    params = Params(**{name: section_of(name, model, document, "params.yaml") for name, model in Params.__annotations__.items()})  # type: ignore[arg-type]
    [expected] = [memory for memory in estimate(params, document["resources"], 141.0)[0] if memory.stage == "midtrain"]
    accelerator = {} if torch.cuda.is_available() else {"DS_ACCELERATOR": "cpu"}
    environment = {**os.environ, **alone(), **accelerator, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, __file__, "--stage"], cwd=folder, env=environment, check=True)
    peak = json.loads((folder / MEASURED).read_text(encoding="utf-8"))
    loss = json.loads((folder / "data/midtrain/metrics.json").read_text(encoding="utf-8"))["loss"]
    parts = {name: size for name, size in expected.gpu.items() if name != "context"}
    lines = [
        "# A random Qwen3 under ZeRO-3: memory expected and measured\n",
        f"`python {' '.join(sys.argv)}`: {parameters:,} parameters, {options.steps} steps of {options.batch_size} rows of "
        f"{options.row_length} tokens, {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU: nothing measured'}\n",
        "| | GB |",
        "|---|---|",
        *(f"| expected: {name} | {size:.2f} |" for name, size in parts.items()),
        f"| expected in all, without the {expected.gpu['context']:.0f} GB of CUDA and libraries | {sum(parts.values()):.2f} |",
        *(f"| measured: at most {name} by torch | {peak[name] / GB:.2f} |" for name in ("allocated", "reserved") if name in peak),
        f"\nLoss {loss['first']:.3f}, then {loss['last']:.3f}; {peak['seconds']:.0f} s in all.",
    ]
    print("\n".join(lines))
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
