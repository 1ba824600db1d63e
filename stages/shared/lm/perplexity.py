"""How well a language model predicts a text: perplexity a token, and bits a byte, which models of different tokenizers share."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.shared.core.errors import StageError

LONGEST = 512  # tokens of a text that are looked at


@torch.no_grad()
def perplexity(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], without: Sequence[int] = ()
) -> dict[str, float]:
    """{"perplexity": exp of the mean -log p a token, "bits_per_byte": sum of -log2 p over bytes}.

    Each text is read by itself; its first token is given, and counts in neither. without: token ids that take no part in the softmax.
    """
    device, total, tokens, size = model.device, 0.0, 0, 0
    for text in texts:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"][:LONGEST], encoded["offset_mapping"][:LONGEST]
        if len(ids) < 2:
            continue
        row = torch.tensor([ids], device=device)
        logits = model(input_ids=row, use_cache=False).logits[0, :-1].float()
        logits[:, list(without)] = -torch.inf
        total += float(F.cross_entropy(logits, row[0, 1:], reduction="sum"))
        tokens += len(ids) - 1
        size += len(text[offsets[0][1] : offsets[-1][1]].encode())
    if not tokens:
        raise StageError("no text of two tokens or more, so its perplexity is not defined; give longer ones")
    return {"perplexity": math.exp(total / tokens), "bits_per_byte": total / math.log(2) / size}
