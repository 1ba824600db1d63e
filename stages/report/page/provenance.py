"""Where the evaluated model came from: the stages behind it with their parameters, and the hashes of their outputs.

All of it from what the stage `report` declares: its params, its inputs, and the hashes that `evaluate` recorded of the inputs and
models that it read. The whole chain, with the code and the run of every stage, is in the ledger: `gr2 lineage data/quantize/model`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import DATA
from stages.shared.evaluation.content_hash import content_md5

# The stages behind a model, first to last. dvc.yaml declares each of these sections, and those of SHOWN_SECTIONS, as params of `report`.
STAGES = ("ingest", "embed", "tokenize", "retrieve", "midtrain", "traces", "sft", "distil", "rl", "quantize")
SHOWN_SECTIONS = (*STAGES, "prompt", "evaluate", "report")
# What `report` reads of these stages; dvc.yaml declares it. The page gives the hash of each.
READ_FILES = (
    "ingest/interactions.parquet",
    "ingest/items.parquet",
    "ingest/metrics.json",
    "ingest/world.safetensors",
    "tokenize/metrics.json",
    "tokenize/sids.parquet",
    "tokenize/usage.json",
    "retrieve/candidate_features.parquet",
    "retrieve/metrics.json",
    "retrieve/slates.parquet",
    "midtrain/loss.csv",
    "midtrain/metrics.json",
    "traces/metrics.json",
    "sft/loss.csv",
    "sft/metrics.json",
    "distil/loss.csv",
    "distil/metrics.json",
    "rl/metrics.json",
    "rl/steps.csv",
    "quantize/metrics.json",
)


@dataclass(frozen=True)
class Link:
    """One stage of the chain."""

    stage: str
    outputs: list[tuple[str, str]]  # (path, first 8 digits of its MD5)
    params: dict[str, Any]
    broken: list[str] = field(default_factory=list)  # outputs that changed after the evaluation read them


def read_shown_params(path: Path = Path("params.yaml")) -> dict[str, Any]:
    """The sections that the page shows. Never `resources`: what a stage takes of a machine changes no figure."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if missing := [section for section in SHOWN_SECTIONS if section not in document]:
        raise StageError(f"{path}: the section '{missing[0]}' is missing; copy it from infra/profiles/default.yaml")
    return {section: document[section] for section in SHOWN_SECTIONS}


def provenance(evaluated: Mapping[str, str], params: Mapping[str, Any], data: Path = DATA) -> list[Link]:
    """evaluated: path -> MD5 of what the evaluation read (EvaluateMetrics.inputs)."""
    read = {path.as_posix(): content_md5(path) for path in map(data.joinpath, READ_FILES)}
    # What the evaluation recorded counts: the figures come from that version of each file.
    outputs = sorted({**read, **evaluated}.items())
    changed = sorted(path for path, md5 in evaluated.items() if read.get(path, md5) != md5)
    return [
        Link(
            stage=stage,
            outputs=[(path, md5[:8]) for path, md5 in outputs if Path(path).parent.name == stage],
            params={stage: params[stage]},
            broken=[path for path in changed if Path(path).parent.name == stage],
        )
        for stage in STAGES
        if params[stage].get("mode") != "none"  # of distil: no model came of it
    ]
