"""LoRA through peft (Hu et al. 2021, arXiv 2106.09685), with the embedding rows of semantic IDs trained beside it, merged before saving.

A pretrained model has never seen the tokens of the SIDs: adapters alone cannot give their rows a meaning.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.shared.core.errors import StageError
from stages.shared.slates.layouts.marks import SPECIAL_TOKENS
from stages.shared.slates.sids import SID_BEGIN, SID_END
from stages.shared.training.params import LoraSection
from stages.shared.training.zero import gathered

CODE = re.compile(r"<s_[a-z]_\d+>")


def sid_and_layout_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that extend_vocabulary sees to, ascending."""
    marks = {SID_BEGIN, SID_END, *SPECIAL_TOKENS}
    return sorted(index for token, index in tokenizer.get_vocab().items() if token in marks or CODE.fullmatch(token))


def add_lora(model: PreTrainedModel, params: LoraSection, token_ids: Sequence[int], seed: int = 0) -> Any:
    """Puts adapters into `model`, in place, and freezes everything else but the rows of `token_ids` (if params.token_rows).

    The model stays of its class, so whoever holds it trains and saves it as before. Returns peft's LoraModel, for merge_lora.
    StageError where a target is no linear layer of the model.
    """
    from peft import LoraConfig  # takes seconds
    from peft.tuners.lora import LoraModel

    names: dict[nn.Module, str] = {module: name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)}
    linear = {name.rpartition(".")[2] for module, name in names.items() if isinstance(module, nn.Linear)}
    if unknown := [target for target in params.targets if target not in linear]:
        raise StageError(f"params.yaml: lora.targets: {type(model).__name__} has no linear layer {unknown[0]!r}; it has {sorted(linear)}")
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    # Where input and output are one matrix, peft trains its rows once for both.
    embeddings = [inputs] if model.config.get_text_config().tie_word_embeddings else [inputs, outputs]
    config = LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=list(params.targets),
        trainable_token_indices={names[module]: list(token_ids) for module in embeddings} if params.token_rows and token_ids else None,
    )
    # peft copies the rows it will train, and draws the adapters.
    with gathered([module.weight for module in embeddings]), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LoraModel(model, config, "default")


def merge_lora(lora: Any) -> None:
    """The adapters become part of the weights: the model is as it was made, with other values, and all of it may learn again."""
    model = lora.merge_and_unload()
    model.requires_grad_(True)


def one_name_each(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of tensors that share their memory the first; whoever loads it has the others, too."""
    kept: dict[Any, str] = {}
    for name, tensor in state.items():
        kept.setdefault((tensor.data_ptr(), tensor.shape) if tensor.numel() else name, name)
    return {name: state[name] for name in kept.values()}
