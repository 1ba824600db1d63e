"""Quantized folders for vLLM: which of their layers it has kernels for, and copies with the others spelt out."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stages.shared.core.device import sums_integers
from stages.shared.core.outputs import read_json
from stages.shared.lm.models import save_unquantized

LAYERS = ["Linear"]  # targets of the group of a model's layers; every other group is of its embedding and head
CPU_MULTIPLE = 32  # of inputs and outputs of a 4-bit layer, for vLLM's kernel on CPUs


@contextmanager
def vllm_folder(folder: Path, dtype: str, on_cpu: bool) -> Iterator[Path]:
    """`folder`, or where vLLM cannot read it a copy, which is gone when the block ends."""
    what = to_spell_out(folder, dtype, on_cpu)
    if what == "nothing":
        yield folder
        return
    with tempfile.TemporaryDirectory() as copy:
        (save_unquantized if what == "all" else spell_out_tables)(folder, Path(copy))
        yield Path(copy)


def to_spell_out(folder: Path, dtype: str, on_cpu: bool) -> Literal["nothing", "tables", "all"]:
    """What of the model at `folder` vLLM 0.32 has no kernel for.

    Layers: on a CPU it has them for 8 bits with rounded inputs, exact ones with VNNI alone, and for 4 bits where activations are not
    float32; 3 bits are spelt out everywhere, as few GPUs have a kernel. Tables: vLLM reads an embedding that is packed, on GPUs, and none
    that transformers reads.
    """
    config = read_json(folder / "config.json")
    groups: list[dict[str, Any]] = list((config.get("quantization_config") or {}).get("config_groups", {}).values())
    if not groups:
        return "all" if on_cpu and "quantization_config" in config else "nothing"
    layers = [group for group in groups if group["targets"] == LAYERS]
    tables = len(groups) > len(layers)
    if len(layers) != 1 or not _has_kernel(layers[0], folder, dtype, on_cpu):
        return "all" if on_cpu or layers else "nothing"
    return "tables" if tables else "nothing"


def _has_kernel(layers: dict[str, Any], folder: Path, dtype: str, on_cpu: bool) -> bool:
    bits = layers["weights"]["num_bits"]
    if not on_cpu:
        return bits != 3
    if layers.get("input_activations"):
        return bool(bits == 8) and sums_integers()
    shapes = [tensor.tolist() for path in folder.glob("*.safetensors") for name, tensor in _shapes(path)]
    return bits == 4 and dtype != "float32" and all(size % CPU_MULTIPLE == 0 for shape in shapes for size in shape)


def _shapes(path: Path) -> list[tuple[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        return [(name, file.get_tensor(name)) for name in file.keys() if name.endswith(".weight_shape")]  # noqa: SIM118, no mapping


def spell_out_tables(folder: Path, target: Path) -> None:
    """Copies the model at `folder`, with embedding and head as numbers and its layers as they are."""
    config = read_json(folder / "config.json")
    described = config["quantization_config"]
    groups = described["config_groups"]
    tables = [name for group in groups.values() if group["targets"] != LAYERS for name in group["targets"]]
    [layers] = [group for group in groups.values() if group["targets"] == LAYERS]
    tensors = {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
    for table in tables:
        scale, codes = tensors.pop(f"{table}.weight_scale"), tensors.pop(f"{table}.weight", None)
        if codes is not None:  # a tied head has none of its own
            tensors[f"{table}.weight"] = codes.to(scale.dtype) * scale
    target.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, target / path.name)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    head = [table for table in tables if table.endswith("lm_head")]
    config["quantization_config"] = {
        **described,
        "config_groups": {"group_0": layers},
        "format": layers["format"],
        "ignore": sorted({*described["ignore"], *head}),
    }
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
