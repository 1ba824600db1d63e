"""Writes a quantized model in the compressed-tensors layout, which transformers and vLLM read without code of ours."""

import json
from pathlib import Path

import compressed_tensors
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

BITS = 8


def quantizable(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """Every linear layer but the output head, which is often the embedding matrix itself and is read token by token there."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head}


def save_compressed(
    model: PreTrainedModel, quantized: dict[str, tuple[Tensor, Tensor]], tokenizer: PreTrainedTokenizerBase, folder: Path
) -> int:
    """Writes `model` with the layers of `quantized` (module name -> codes [O, I], scales [O, 1]) at 8 bits. Returns the weights' bytes."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name.removesuffix(".weight") not in quantized}
    if model.config.tie_word_embeddings:
        # The head is the embedding matrix itself; safetensors refuses shared tensors, and from_pretrained ties it again.
        tensors.pop("lm_head.weight", None)
    for name, (codes_OI, scale_O1) in quantized.items():
        tensors[f"{name}.weight_packed"] = pack_to_int32(codes_OI, BITS)  # four codes an int32
        tensors[f"{name}.weight_scale"] = scale_O1
        tensors[f"{name}.weight_shape"] = torch.tensor(codes_OI.shape)
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    model.generation_config.save_pretrained(folder)
    model.config.save_pretrained(folder)
    _describe(folder / "config.json", _ignored(model, quantized))
    tokenizer.save_pretrained(folder)
    return weight_bytes(folder)


def weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _ignored(model: PreTrainedModel, quantized: dict[str, tuple[Tensor, Tensor]]) -> list[str]:
    return sorted(name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name not in quantized)


def _describe(config: Path, ignored: list[str]) -> None:
    """Adds to config.json what a reader must know to restore the weights."""
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=BITS, type="int", symmetric=True, strategy="channel"))
    described = QuantizationConfig(
        config_groups={"group_0": scheme}, format="pack-quantized", quantization_status="compressed", ignore=ignored
    ).model_dump(mode="json")
    values = json.loads(config.read_text(encoding="utf-8"))
    values["quantization_config"] = {**described, "quant_method": "compressed-tensors", "version": compressed_tensors.__version__}
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
