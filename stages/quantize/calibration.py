"""How far the quantized model's predictions lie from the full one's, on text the pipeline really reads."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.shared.core.progress import tracked
from stages.shared.lm.encoding import WeightedExample, encode
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.traces import read_traces

RANDOM_LENGTH = 64


def calibration_examples(traces: Path, tokenizer: PreTrainedTokenizerBase, count: int, seed: int) -> list[WeightedExample]:
    """`count` training examples, longest first; what the teacher wrote has weight 1. Random tokens if there are no traces."""
    rng = np.random.default_rng(seed)
    if not traces.exists():
        rows = rng.integers(0, len(tokenizer), (count, RANDOM_LENGTH)).tolist()
        return [WeightedExample(ids, [1.0] * RANDOM_LENGTH) for ids in rows]
    table = read_traces(traces).select("prompt", "trace", "answer")
    chosen = table[sorted(rng.choice(table.height, min(count, table.height), replace=False).tolist())]
    documents = [((prompt, 0.0), (trace + THINK_END + answer, 1.0)) for prompt, trace, answer in chosen.iter_rows()]
    return sorted(encode(documents, tokenizer), key=lambda example: (-len(example.ids), example.ids))


class Predictions:
    """Logits of the full model where an example's weight is not 0, kept while its weights are replaced in place."""

    def __init__(self, model: PreTrainedModel, examples: Sequence[WeightedExample], batch_size: int):
        self.model, self.examples, self.batch_size = model, examples, batch_size
        self.full = [logits.cpu() for logits in self._logits("full model")]

    def compare(self) -> dict[str, float]:
        """Means over the predicted tokens; KL(full || quantized) in nats."""
        tokens = error = divergence = agreement = 0.0
        for full_NV, quantized_NV in zip(self.full, self._logits("quantized model"), strict=True):
            # In double precision: at 8 bits the divergence is a small difference between large sums.
            before_NV, after_NV = (torch.log_softmax(logits.double(), -1) for logits in (full_NV, quantized_NV.cpu()))
            tokens += len(full_NV)
            error += float((full_NV - quantized_NV.cpu()).abs().double().mean(-1).sum())
            divergence += float((before_NV.exp() * (before_NV - after_NV)).sum())
            agreement += float((before_NV.argmax(-1) == after_NV.argmax(-1)).sum())
        return {
            "tokens": int(tokens),
            "mean_abs_logit_error": error / tokens,
            "kl": max(divergence / tokens, 0.0),
            "top1_agreement": agreement / tokens,
        }

    def _logits(self, what: str) -> Iterator[Tensor]:
        """float32 [predicted tokens, vocabulary] for each batch."""
        for start in tracked(range(0, len(self.examples), self.batch_size), f"batches, {what}", unit="batch"):
            batch = self.examples[start : start + self.batch_size]
            width = max(len(example.ids) for example in batch)
            # Padding on the right: attention looks left only, so nothing that is kept sees it.
            ids_BL = torch.tensor([example.ids + [0] * (width - len(example.ids)) for example in batch])
            kept_BL = torch.tensor(
                [[*(weight > 0 for weight in example.weights[1:]), *[False] * (width - len(example.ids) + 1)] for example in batch]
            )
            with torch.no_grad():
                yield self.model(input_ids=ids_BL.to(self.model.device)).logits[kept_BL.to(self.model.device)].float()
