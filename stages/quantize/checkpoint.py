"""Writes a quantized model in the compressed-tensors layout, which transformers and vLLM read without code of ours."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import compressed_tensors
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.quantize.schemes import TABLE_BITS, WeightGrid

PACKED, INTEGERS, MIXED = "pack-quantized", "int-quantized", "mixed-precision"
# Of embedding and head. transformers looks for the tensor `weight` of an embedding, and ties the head to it by that name.
TABLE_FORMAT = INTEGERS


@dataclass(frozen=True)
class CompressedLayout:
    """How a quantized model is written.

    tables: names of embedding and head, as far as they are quantized; copies: those of them whose codes are another's (tied).
    """

    grid: WeightGrid
    tables: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: PreTrainedModel, grid: WeightGrid, quantized: dict[str, tuple[Tensor, Tensor]]) -> "CompressedLayout":
        ends: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]  # type: ignore[no-untyped-call]
        tables = [name for name, module in model.named_modules() if name in quantized and any(module is end for end in ends)]
        return cls(grid, tables, tables[1:] if model.config.tie_word_embeddings else [])

    @property
    def format(self) -> str:
        """Of the layers: integers as they are where the input is rounded too, else as many as fit into an int32."""
        return INTEGERS if self.grid.activation_bits else PACKED

    def bits_and_format(self, name: str) -> tuple[int, str]:
        return (TABLE_BITS, TABLE_FORMAT) if name in self.tables else (self.grid.bits, self.format)

    def config(self, ignored: list[str]) -> dict[str, Any]:
        """quantization_config of config.json."""
        groups = {"group_0": _scheme(["Linear"], self.grid, None)}
        if self.tables:  # first, as a head is a linear layer, too
            groups = {
                "group_0": _scheme(self.tables, WeightGrid(TABLE_BITS), TABLE_FORMAT),
                "group_1": _scheme(["Linear"], self.grid, self.format),
            }
        mixed = bool(self.tables) and self.format != TABLE_FORMAT
        config = QuantizationConfig(
            config_groups=groups, format=MIXED if mixed else self.format, quantization_status="compressed", ignore=ignored
        )
        return {**config.model_dump(mode="json"), "quant_method": "compressed-tensors", "version": compressed_tensors.__version__}


def save_compressed(
    model: PreTrainedModel,
    quantized: dict[str, tuple[Tensor, Tensor]],
    layout: CompressedLayout,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
) -> int:
    """Writes `model` with the modules of `quantized` (name -> codes [O, I], scales [O, G]) as integers. Returns the weights' bytes."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.removesuffix(".weight") not in quantized}
    if model.config.tie_word_embeddings:
        # The head is the embedding matrix itself; safetensors refuses shared tensors, and from_pretrained ties it again.
        tensors.pop("lm_head.weight", None)
    for name, (codes_OI, scale_OG) in quantized.items():
        bits, form = layout.bits_and_format(name)
        tensors[f"{name}.weight_scale"] = scale_OG.clone()  # a tied head has the embedding's, and a place of its own in the file
        if form == PACKED:
            tensors[f"{name}.weight_packed"] = pack_to_int32(codes_OI, bits)  # eight codes of 4 bits an int32, ten of 3
            tensors[f"{name}.weight_shape"] = torch.tensor(codes_OI.shape)
        elif name not in layout.copies:
            tensors[f"{name}.weight"] = codes_OI
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    model.generation_config.save_pretrained(folder)
    model.config.save_pretrained(folder)
    _describe(folder / "config.json", layout.config(_ignored(model, quantized)))
    tokenizer.save_pretrained(folder)
    return weight_bytes(folder)


def weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _scheme(targets: list[str], grid: WeightGrid, form: str | None) -> QuantizationScheme:
    weights = QuantizationArgs(
        num_bits=grid.bits, type="int", symmetric=True, strategy="group" if grid.group else "channel", group_size=grid.group or None
    )
    inputs = None
    if grid.activation_bits:
        inputs = QuantizationArgs(num_bits=grid.activation_bits, type="int", symmetric=True, strategy="token", dynamic=True)
    return QuantizationScheme(targets=targets, weights=weights, input_activations=inputs, format=form)


def _ignored(model: PreTrainedModel, quantized: dict[str, tuple[Tensor, Tensor]]) -> list[str]:
    return sorted(name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in quantized)


def _describe(config: Path, described: dict[str, Any]) -> None:
    """Adds to config.json what a reader must know to restore the weights."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values["quantization_config"] = described
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
