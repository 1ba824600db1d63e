"""Whether a model folder can be served at all: finite weights, and a vocabulary that its rows and the SIDs fit. No model is loaded."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json
from stages.shared.slates.sids import CODE_TOKEN, SID_BEGIN, SID_END

CHUNK = 1 << 24  # values looked at at once
LONGEST_HEADER = 100_000_000  # bytes; what the safetensors library takes
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
# Of types that numpy lacks, by their bits: not finite where all bits of the mask are set.
MASKED = {"BF16": ("<u2", 0x7F80), "F8_E4M3": ("u1", 0x7F), "F8_E5M2": ("u1", 0x7C)}


def check_weights(folder: Path) -> dict[str, int]:
    """StageError for a tensor with a NaN or an infinity, or weights that are not whole. -> counts of tensors and of values looked at."""
    counts = {"tensors": 0, "values": 0}
    for file, name, kind, values in _tensors(folder):
        counts["tensors"] += 1
        for start in range(0, len(values), CHUNK):
            chunk = values[start : start + CHUNK]
            counts["values"] += len(chunk)
            mask = MASKED[kind][1] if kind in MASKED else 0
            bad = (chunk & mask) == mask if mask else ~np.isfinite(chunk)
            if bad.any():
                raise StageError(
                    f"{file}: the tensor {name} has {int(bad.sum())} values that are NaN or infinite; lower the learning rate of the stage "
                    "that made it, or look at its loss"
                )
    return counts


def check_vocabulary(folder: Path, sids: Path) -> dict[str, int]:
    """StageError unless every id of the tokenizer has a row of the embedding, and every SID in `sids` is made of the tokenizer's tokens."""
    rows = {shape[0] for _, name, shape in _shapes(folder) if name.endswith(("embed_tokens.weight", "wte.weight")) and len(shape) == 2}
    if len(rows) != 1:
        raise StageError(f"{folder}: no embedding of tokens among its weights; the folder is not whole, copy it again or make it anew")
    (row_count,) = rows
    vocab_size = read_json(folder / "config.json").get("vocab_size")
    if vocab_size != row_count:
        raise StageError(f"{folder}: config.json says vocab_size {vocab_size}, and the embedding has {row_count} rows: parts of two models")
    ids = token_ids(folder / "tokenizer.json")
    highest = max(ids.values(), default=-1)
    if highest >= row_count:
        raise StageError(
            f"{folder}: its tokenizer has ids up to {highest}, and the embedding {row_count} rows: wrong vocabulary, of another model"
        )
    texts = pl.read_parquet(sids, columns=["sid"], glob=False)["sid"].to_list()
    needed = {SID_BEGIN, SID_END} | {match.group() for text in texts for match in CODE_TOKEN.finditer(text)}
    if missing := sorted(needed - ids.keys()):
        raise StageError(
            f"{folder}: its tokenizer lacks {len(missing)} tokens of the catalogue's SIDs ({', '.join(missing[:3])}): wrong vocabulary; "
            "the model was trained on another catalogue, run the stages from tokenize on"
        )
    return {"rows": row_count, "ids": len(ids), "sid_tokens": len(needed)}


def token_ids(path: Path) -> dict[str, int]:
    """token -> id of a tokenizer.json."""
    content = read_json(path)
    vocabulary = content.get("model", {}).get("vocab", {})
    pairs = vocabulary.items() if isinstance(vocabulary, dict) else ((entry[0], place) for place, entry in enumerate(vocabulary))
    return {**dict(pairs), **{token["content"]: token["id"] for token in content.get("added_tokens", [])}}


def _tensors(folder: Path) -> Iterator[tuple[Path, str, str, NDArray[Any]]]:
    """File, name, type and values of every tensor of floating-point numbers; read as they are looked at."""
    for file, offset, entries in _headers(folder):
        size = file.stat().st_size
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            if offset + end > size:
                raise StageError(f"{file}: it ends before its tensor {name} does: the copy was cut short; copy it again, or make it anew")
            kind = entry["dtype"]
            dtype = FLOATS.get(kind) or MASKED.get(kind, ("", 0))[0]
            if dtype and math.prod(entry["shape"]) * np.dtype(dtype).itemsize != end - begin:
                raise StageError(f"{file}: the tensor {name} is not as large as its shape {entry['shape']} says; make it anew")
            if dtype and end > begin:
                yield file, name, kind, np.memmap(file, dtype=dtype, mode="r", offset=offset + begin, shape=math.prod(entry["shape"]))


def _shapes(folder: Path) -> Iterator[tuple[Path, str, list[int]]]:
    yield from ((file, name, entry["shape"]) for file, _, entries in _headers(folder) for name, entry in entries.items())


def _headers(folder: Path) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """Each file of weights, where its data begins, and its tensors by name (dtype, shape, data_offsets).

    By hand: the library hands out values, and has numpy arrays for a part of the types only.
    """
    named = set(read_json(index)["weight_map"].values()) if (index := folder / "model.safetensors.index.json").exists() else set()
    files = sorted({path.name for path in folder.glob("*.safetensors")} | named)
    if not files:
        raise StageError(f"{folder}: no weights (no *.safetensors) there; run the stage that makes it: gr2 run {folder.parent.name}")
    for path in (folder / name for name in files):
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > LONGEST_HEADER:
                    raise ValueError(f"a header of {length} bytes")
                header = json.loads(file.read(length))
        except FileNotFoundError:
            raise StageError(f"{path}: named in model.safetensors.index.json and missing; copy the folder again") from None
        except ValueError as error:
            raise StageError(f"{path}: not a readable file of safetensors ({error}); copy it again, or make it anew") from None
        header.pop("__metadata__", None)
        yield path, 8 + length, header
