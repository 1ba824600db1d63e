"""`python -m stages.tools.doctor PARAMS`: whether a run under these parameters fits the machines it is meant for, and what is missing here.

Exit code 1 where anything is missing or does not fit.
"""

import argparse
import json
import sys
from pathlib import Path

from stages.shared.core.errors import StageError
from stages.shared.core.params import section_of
from stages.shared.core.yaml_text import load_yaml
from stages.tools.check_params import Params
from stages.tools.doctor_checks import checks, listing, visible_gpu_gb
from stages.tools.memory.estimate import StageMemory, estimate, model_gb
from stages.tools.memory.shards import data_size

GPU_GB = 80.0
NOT_YET = "         what shards hold and write of the items is not counted: ingest has not run"
ENGINES = {"traces_shard": "traces.language_model.engine", "traces": "traces.language_model.engine"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gr2 doctor", description="What a run needs of memory, folders and engines, and what is missing.")
    parser.add_argument("params", type=Path)
    parser.add_argument("--gpu-gb", type=float, help=f"memory of one GPU (default: of those here, else {GPU_GB:.0f})")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        document = load_yaml(options.params.read_text(encoding="utf-8"), "params.yaml")
        params = Params(**{name: section_of(name, model, document, "params.yaml") for name, model in Params.__annotations__.items()})  # type: ignore[arg-type]
        resources = document.get("resources", {}) if isinstance(document, dict) else {}
        data = data_size()
        stages, unknown = estimate(params, resources, options.gpu_gb or visible_gpu_gb() or GPU_GB, data)
    except StageError as error:
        sys.exit(f"gr2 doctor: {error}")
    found = checks(params, resources, model_gb(params), stages)
    notes = [NOT_YET] if data is None and any(stage.shards for stage in stages) else []
    # Whose size is not known, its folder is missing: that is reported already, and here only what follows.
    ok = all(stage.fits for stage in stages) and all(check.ok for check in found) and not unknown
    if options.json:
        print(json.dumps({"ok": ok, "stages": list(map(as_dict, stages)), "not_computed": unknown, "checks": [c._asdict() for c in found]}))
    else:
        print(*(line for stage in stages for line in stage_lines(stage)), *not_computed(unknown), *notes, "", *listing(found), sep="\n")
    return 0 if ok else 1


def as_dict(stage: StageMemory) -> dict[str, object]:
    return {
        "stage": stage.stage,
        "model": stage.model,
        "fits": stage.fits,
        "gpus": stage.gpus,
        "gpu_gb": {"limit": stage.gpu_limit, "total": sum(stage.gpu.values()), "parts": stage.gpu},
        "host_gb": {"limit": stage.host_limit, "total": sum(stage.host.values()), "parts": stage.host},
        "faults": stage.faults,
        **({"shards": stage.shards, "disk_gb": stage.disk} if stage.shards else {}),
    }


def stage_lines(stage: StageMemory) -> list[str]:
    verdict = "ok     " if stage.fits else "TOO BIG"
    rows = [("GPU, each of", stage.gpu, stage.gpu_limit)] if stage.gpus and stage.gpu else []
    rows += [("host", stage.host, stage.host_limit)]
    lines = [f"{verdict}  {stage.stage} ({stage.model}){f', each of {stage.shards} shards' if stage.shards else ''}"]
    for place, parts, limit in rows:
        shown = ", ".join(f"{name} {size:.1f}" for name, size in parts.items() if size >= 0.05)
        place = f"{place} {stage.gpus}" if place != "host" else place
        lines.append(f"         {place}: {sum(parts.values()):.1f} of {limit:.0f} GB: {shown}")
    lines += [f"         disk: {stage.disk:.1f} GB"] if stage.disk >= 0.05 else []
    return lines + [f"         -> {fault}" for fault in stage.faults] + remedies(stage)


def remedies(stage: StageMemory) -> list[str]:
    name, lines = stage.stage, []
    trains = name in ("midtrain", "sft", "distil", "rl")
    if stage.gpus and sum(stage.gpu.values()) > stage.gpu_limit:
        rl_keys = "rl.micro_prompts, rl.group (with rl.allocation.knapsack_most) or rl.max_tokens"
        lines.append(
            f"lower {rl_keys if name == 'rl' else f'{name}.batch_size'}, or take a smaller model"
            if trains
            else "lower embed.batch_size or max_tokens, or take a smaller model"
            if name == "embed_shard"
            else f"raise {ENGINES.get(name, f'{name}.engine')}.tensor_parallel, or lower its batch_size"
        )
    if sum(stage.host.values()) > stage.host_limit:
        key = f"{name}.batch_size or {name}.processes" if trains else f"{name}.batch_size or {name}.calibration_prompts"
        key = {"embed_shard": "embed.batch_size", "traces_shard": "traces.language_model.engine.batch_size"}.get(name, key)
        lines.append(
            f"raise resources.{name}.memory_gb where the machine has it, or lower {key if name != 'evaluate' else 'evaluate.threads'}"
        )
    return [f"         -> {line}" for line in lines]


def not_computed(unknown: list[str]) -> list[str]:
    return [
        f"MISSING  {name}: neither its config.json is there nor its published size known; its stages are not computed" for name in unknown
    ]


if __name__ == "__main__":
    sys.exit(main())
