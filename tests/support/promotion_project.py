"""A small made-up project for tests of promotion: answers to slates are planted, no model is trained, and DVC records them as a run's."""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stages.promote.params import PromoteParams
from stages.shared.core.schemas import SIDS, SLATES
from stages.shared.evaluation.content_hash import content_md5
from stages.shared.evaluation.outputs_table import GREEDY, SCHEMA
from stages.shared.slates.sids import sid_text, sid_vocabulary
from tests.support import dvc_toy

USERS, PER_USER, CANDIDATES = 300, 2, 10
MODEL = "data/rl/model"
Change = Callable[[pl.DataFrame], pl.DataFrame]
DVC_YAML = """\
stages:
  tokenize: {cmd: "true", deps: [raw.txt], outs: [data/tokenize/sids.parquet]}
  retrieve: {cmd: "true", deps: [raw.txt], outs: [data/retrieve/slates.parquet]}
  rl: {cmd: "true", deps: [raw.txt], params: [rl], outs: [data/rl/model], metrics: [data/rl/metrics.json]}
  evaluate:
    cmd: "true"
    deps: [data/rl/model, data/retrieve/slates.parquet, data/tokenize/sids.parquet]
    outs: [data/evaluate/outputs.parquet]
    metrics: [data/evaluate/metrics.json]
artifacts:
  reranker: {path: data/rl/model, type: model}
"""


def slates(seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    count = USERS * PER_USER
    candidates = np.stack([rng.choice(500, CANDIDATES, replace=False) for _ in range(count)])
    targets = np.minimum(rng.geometric(0.25, count) - 1, CANDIDATES - 1)
    columns: dict[str, Any] = {
        "slate": np.arange(count),
        "user": np.repeat(np.arange(USERS), PER_USER),
        "position": rng.integers(5, 80, count),
        "timestamp": np.arange(count),
        "split": ["test"] * count,
        "history": [[1, 2]] * count,
        "candidates": candidates.tolist(),
        "scores": [[0.0] * CANDIDATES] * count,
        "target": candidates[np.arange(count), targets],
        "target_rank": targets,
        "fold": [-1] * count,
        "provenance": [""] * count,
        "hard": [[]] * count,
    }
    return pl.DataFrame(columns, schema=SLATES)


def answers(table: pl.DataFrame, skill: float, seed: int = 1, model: str = "rl", kind: str = GREEDY) -> pl.DataFrame:
    """Orders by a noisy score; `skill`: how much better the target's is. The noise is the same for every skill."""
    noise = np.random.default_rng(seed).normal(0, 1, (table.height, CANDIDATES))
    targets = table["target_rank"].to_numpy()
    scores = noise - 0.3 * np.arange(CANDIDATES)
    scores[np.arange(table.height), targets] += skill
    return of_orders(table, np.argsort(-scores, axis=1), model, kind)


def of_orders(table: pl.DataFrame, orders: np.ndarray, model: str = "rl", kind: str = GREEDY) -> pl.DataFrame:
    targets = table["target_rank"].to_numpy()
    columns: dict[str, Any] = {name: table[name] for name in ("slate", "user", "position", "target_rank")}
    columns |= {
        "model": model,
        "kind": kind,
        "sample": 0,
        "fault": "",
        "text": "",
        "shown": None,
        "reasoning_tokens": 9,
        "answer_tokens": 9,
    }
    columns |= {"new_rank": np.argmax(orders == targets[:, None], axis=1), "order": orders.tolist()}
    return pl.DataFrame(columns, schema_overrides=SCHEMA).select(list(SCHEMA))


def with_faults(rows: pl.DataFrame, share: float) -> pl.DataFrame:
    """The first `share` of the answers are no permutations, which count as the initial ranking."""
    bad = pl.int_range(pl.len()) < share * pl.len()
    initial = pl.lit(list(range(CANDIDATES)), dtype=pl.List(pl.Int64))
    return rows.with_columns(
        pl.when(bad).then(pl.lit("a candidate twice")).otherwise("fault").alias("fault"),
        pl.when(bad).then(pl.col("target_rank").cast(pl.Int32)).otherwise("new_rank").alias("new_rank"),
        pl.when(bad).then(initial).otherwise("order").alias("order"),
    )


def write_model(folder: Path, seed: int = 0, height: int = 64, bad: float | None = None, dtype: str = "F32", codes: int = 8) -> None:
    """A folder as Hugging Face writes it, of one embedding. bad: a value that one weight has."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<|pad|>", "<|end|>", *sid_vocabulary(2, codes)]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
    (folder / "config.json").write_text(json.dumps({"vocab_size": height}))
    values = np.random.default_rng(seed).normal(size=(height, 4)).astype(np.float32)
    if bad is not None:
        values[7, 2] = bad
    data = values.tobytes() if dtype == "F32" else (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()  # BF16: the upper half
    header = json.dumps({"model.embed_tokens.weight": {"dtype": dtype, "shape": [height, 4], "data_offsets": [0, len(data)]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)


def plant(root: Path, rows: pl.DataFrame, table: pl.DataFrame | None = None, seed: int = 0, **model: Any) -> Path:
    """All that promotion reads of a finished run, under root/data. seed: of the weights, so that runs have different models."""
    for name in ("evaluate", "retrieve", "tokenize", "rl"):
        (root / "data" / name).mkdir(parents=True, exist_ok=True)
    (slates() if table is None else table).write_parquet(root / "data/retrieve/slates.parquet")
    sids = {"item": [0, 1], "codes": [[0, 1], [7, 3]], "sid": [sid_text([0, 1]), sid_text([7, 3])]}
    pl.DataFrame(sids, schema=SIDS).write_parquet(root / "data/tokenize/sids.parquet")
    write_model(root / MODEL, seed, **model)
    rows.write_parquet(root / "data/evaluate/outputs.parquet")
    write_metrics(root)
    return root


def write_metrics(root: Path, **more: Any) -> None:
    inputs = {path: content_md5(root / path) for path in (MODEL, "data/retrieve/slates.parquet", "data/tokenize/sids.parquet")}
    (root / "data/evaluate/metrics.json").write_text(json.dumps({"inputs": inputs, **more}))
    (root / "data/rl/metrics.json").write_text(json.dumps({"steps": 3}))


def make(folder: Path, **gates: Any) -> Path:
    """A project of git and DVC without a run. gates: of the section promote."""
    (folder / "data").mkdir(parents=True)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "raw.txt").write_text("raw\n")
    section = json.dumps({**PromoteParams().model_dump(), **gates})  # JSON is YAML
    (folder / "params.yaml").write_text(f"rl: {{x: 0}}\npromote: {section}\n")
    (folder / ".gitignore").write_text("/data/*/\n/.gr2/\n__pycache__/\n")
    root = dvc_toy.start(folder)
    for key, value in (("user.name", "Ada"), ("user.email", "ada@example.org")):
        dvc_toy.call(root, "git", "config", key, value)
    return root


def run(root: Path, rows: pl.DataFrame, x: int, commit: bool = True, **planted: Any) -> str:
    """A run that gave these answers, with rl.x = `x`, recorded by DVC and committed; the commit."""
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(f"rl: {{x: {x}}}\n" + text.split("\n", 1)[1])
    for path in (MODEL, "data/evaluate", "data/retrieve", "data/tokenize", "data/rl"):
        dvc_toy.call(root, "rm", "-rf", path)  # links into the cache, which are not to be written through
    plant(root, rows, seed=x, **planted)
    record(root)
    if commit:
        dvc_toy.commit(root, f"run {x}")
    return dvc_toy.call(root, "git", "rev-parse", "HEAD").stdout.strip()


def record(root: Path) -> None:
    """What lies in data/ becomes what dvc.lock records."""
    dvc_toy.call(root, sys.executable, "-m", "dvc", "commit", "-f", "-q")
