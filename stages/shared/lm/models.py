"""The one place that loads and saves language models: Hugging Face folders with safetensors, no code from outside."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from stages.shared.core.errors import StageError
from stages.shared.core.launch import is_main_process
from stages.shared.core.model_folder import how_to_make, refuse_own_code
from stages.shared.core.outputs import read_json
from stages.shared.core.progress import note
from stages.shared.slates.layouts.marks import END, PAD, SPECIAL_TOKENS
from stages.shared.slates.sids import sid_vocabulary

# Of generation_config.json, what does not say how to sample: tokens, and what transformers itself writes of every model.
NO_SAMPLING = {"bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "transformers_version", "_from_model_config"}
NO_SAMPLING |= {"output_attentions", "output_hidden_states"}


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    _check_folder(folder)
    _check_added_tokens(folder)
    # What tokenizer.json says, as it says it: AutoTokenizer goes by the model's type and would put Qwen2's word splitting in place of ours.
    loader = PreTrainedTokenizerFast if (folder / "tokenizer.json").exists() else AutoTokenizer
    tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    _check_special_ids(folder, tokenizer)
    return tokenizer


def load_model(folder: Path, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """The model at `folder`, in eval mode. dtype: a torch dtype's name."""
    _check_folder(folder)
    check_weights(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True, use_safetensors=True, dtype=getattr(torch, dtype)
    )
    if settings := sampling_settings(folder):
        # transformers refuses to save some that it has read, and whoever serves the trained model would sample by them.
        model.generation_config = GenerationConfig.from_model_config(model.config)
        if is_main_process():
            note(f"{folder}/generation_config.json: {', '.join(settings)}: not used; params.yaml says how models are asked")
    return model.to(device).eval()  # type: ignore[arg-type]


def sampling_settings(folder: Path) -> list[str]:
    """What the folder's generation_config.json says about sampling, by name."""
    path = folder / "generation_config.json"
    values = read_json(path) if path.exists() else {}
    return sorted(key for key, value in values.items() if key not in NO_SAMPLING and value not in (None, False))


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def is_quantized(folder: Path) -> bool:
    return "quantization_config" in read_json(folder / "config.json")


def spell_out(model: Any) -> None:
    """Gives the layers of a quantized model their weights, which they otherwise get when the whole model is first called: whoever calls a
    part of it, as `base_model`, would find none."""
    if hasattr(model, "ct_decompress_hook"):
        model.hf_quantizer.compressor.decompress_model(model)


def save_unquantized(folder: Path, target: Path) -> None:
    """Writes the quantized model at `folder` to `target` with its weights spelt out, for an engine that has no kernel for them."""
    model: Any = load_model(folder)
    spell_out(model)
    config = type(model.config).from_dict({key: value for key, value in model.config.to_dict().items() if key != "quantization_config"})
    plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    weights = plain.state_dict().keys()
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in weights})
    save_model(plain, load_tokenizer(folder), target)


def extend_vocabulary(tokenizer: PreTrainedTokenizerBase, levels: int, codebook_size: int, end: str = END) -> list[str]:
    """Adds the layout's and the SIDs' tokens that `tokenizer` lacks, one id each, and sets pad and end. Returns the tokens added.

    end: ours, or for dialogues what ends a turn of the model's own template (layouts/dialogue.py).
    """
    layout_tokens = [*SPECIAL_TOKENS, *sid_vocabulary(levels, codebook_size)]
    vocabulary = tokenizer.get_vocab()
    added = [token for token in layout_tokens if token not in vocabulary]
    tokenizer.add_tokens(added, special_tokens=True)
    tokenizer.pad_token, tokenizer.eos_token = PAD, end
    return added


def resize_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Grows the embeddings to the tokenizer. New rows are the model's own initialisation; midtrain writes those that a token has."""
    ids = max(tokenizer.get_vocab().values()) + 1  # more than there are tokens, where a checkpoint's ids have gaps
    rows = -(-ids // 64) * 64  # a multiple of 64 suits matrix units and tensor parallelism
    weight: Any = model.get_input_embeddings().weight
    # Shared out between processes (ZeRO-3), its own shape is that of nothing.
    if getattr(weight, "ds_shape", weight.shape)[0] < rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id


def _remedy(folder: Path) -> str:
    return how_to_make(folder) or "copy the whole model there"


def _check_folder(folder: Path) -> None:
    if not (folder / "tokenizer.json").exists() and not (folder / "tokenizer_config.json").exists():
        raise StageError(f"{folder}: not a Hugging Face model folder (no tokenizer.json); {_remedy(folder)}")
    refuse_own_code(folder)


def check_weights(folder: Path) -> None:
    """StageError where there are none as safetensors. vLLM would read the others."""
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if not pickled:
        raise StageError(f"{folder}: no weights (no *.safetensors) there; {_remedy(folder)}")
    raise StageError(
        f"{folder}: its weights are pickled ({', '.join(pickled[:3])}), and reading them can run code; take a revision of the model with "
        "model.safetensors, or convert it where you trust it: "
        f"AutoModelForCausalLM.from_pretrained('{folder}').save_pretrained('{folder}-safetensors'), and copy the tokenizer's files"
    )


def _check_added_tokens(folder: Path) -> None:
    """The tokenizers library gives a token that disagrees another id, without a word, and the model then reads another row."""
    if not (path := folder / "tokenizer.json").exists():
        return
    content = read_json(path)
    vocabulary = content.get("model", {}).get("vocab", {})
    token_of = {index: token for token, index in vocabulary.items()} if isinstance(vocabulary, dict) else {}
    for token in content.get("added_tokens", []):
        index, text = token["id"], token["content"]
        if token_of.setdefault(index, text) != text:
            raise _disagreeing(path, text, f"has the id {index}, and so has {token_of[index]!r}")
        if isinstance(vocabulary, dict) and vocabulary.get(text, index) != index:
            raise _disagreeing(path, text, f"has the id {index} as an added token and {vocabulary[text]} in the vocabulary")


def _check_special_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Every special token is one that the model has a row for."""
    source = folder / "tokenizer_config.json"
    config = folder / "config.json"
    values = read_json(config) if config.exists() else {}
    rows = values.get("vocab_size") or values.get("text_config", {}).get("vocab_size")
    for name, text in tokenizer.special_tokens_map.items():
        for token in [text] if isinstance(text, str) else text:
            index: Any = tokenizer.convert_tokens_to_ids(token)
            if isinstance(rows, int) and (index is None or index >= rows):
                raise _disagreeing(source, token, f"({name}) has the id {index}, and the model {rows} rows ({config.name}: vocab_size)")


def _disagreeing(path: Path, token: str, what: str) -> StageError:
    return StageError(f"{path}: the special token {token!r} {what}; take all files of the model and its tokenizer from one revision")
