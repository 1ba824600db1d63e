"""How well the traces suit the student that will learn them: the cheap form of reverse speculative decoding (arXiv 2509.22230).

There the student refuses each token of the teacher that it finds improbable. Here finished traces are scored: those with the lowest mean
log-probability under the student, as it is before training, are dropped or weigh less.
"""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.shared.core.device import device_of
from stages.shared.core.progress import tracked
from stages.shared.lm.encoding import WeightedExample, encode
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.lm.packaged import folder_of
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.layout import Layout
from stages.traces.acceptance.kept import Kept
from stages.traces.acceptance.rejection import RejectionLog
from stages.traces.params import StudentFitParams

LOGITS = 2**27  # floats of logits at once, half a GiB; one row may take more


def apply_student_fit(log: RejectionLog, layout: Layout, params: StudentFitParams) -> tuple[list[float], dict[str, object]]:
    """Scores the kept traces and, unless they are to be weighed, takes the improbable ones out of `log`. Returns the weights of those kept
    (1 but for improbable ones: exp of what their mean log-probability lacks of the quantile) and the metrics."""
    folder = folder_of(params.model)
    tokenizer = load_tokenizer(folder)
    model = load_model(folder, device=device_of(params.device, "traces.student_fit.device"))
    scores = mean_logprobs(model, tokenizer, trace_documents(log.kept, layout, tokenizer))
    bound = float(np.quantile(scores, params.drop_below))
    improbable = scores < bound
    metrics: dict[str, object] = {"mean_logprob": float(scores.mean()), "bound": bound, "improbable": int(improbable.sum())}
    if params.weight:
        return np.exp(np.minimum(0.0, scores - bound)).tolist(), metrics
    flags = iter(improbable.tolist())
    for one in log.slates:
        before = len(one.kept)
        one.kept = [kept for kept in one.kept if not next(flags)]
        one.improbable = before - len(one.kept)
    return [1.0] * len(log.kept), metrics


def trace_documents(kept: Sequence[Kept], layout: Layout, tokenizer: PreTrainedTokenizerBase) -> list[WeightedExample]:
    """Prompt and trace as sft will show them, the trace's tokens with weight 1."""
    encoded = EncodedLayout(layout, tokenizer)
    prompts = [layout.prompt(one.scored.slate) for one in kept]
    if layout.dialogue:
        prompts = [encoded.fitted(prompt) for prompt in prompts]
    return encode([[(prompt, 0.0), (one.proposal.trace, 1.0)] for prompt, one in zip(prompts, kept, strict=True)], tokenizer)


def mean_logprobs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Sequence[WeightedExample]) -> np.ndarray:
    """[n]: of each example, the mean log-probability of its tokens of weight above 0."""
    scores = np.zeros(len(examples))
    longest_first = sorted(range(len(examples)), key=lambda i: -len(examples[i].ids))
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id  # masked, whatever it is
    rows = max(1, LOGITS // (len(examples[longest_first[0]].ids) * model.config.vocab_size))
    batches = [longest_first[start : start + rows] for start in range(0, len(examples), rows)]
    for batch in tracked(batches, "student fit", unit="batch"):
        lengths = [len(examples[i].ids) for i in batch]
        ids_BL = padded([examples[i].ids for i in batch], pad).to(model.device)
        mask_BL = padded([[1] * length for length in lengths], 0).to(model.device)
        counted_BL = padded([[int(weight > 0) for weight in examples[i].weights] for i in batch], 0).to(model.device)
        with torch.inference_mode():
            logits_BLV = model(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False).logits[:, :-1].float()
            logprobs_BL = torch.log_softmax(logits_BLV, dim=-1).gather(2, ids_BL[:, 1:, None])[..., 0]
        counted_BL = counted_BL[:, 1:]  # the first token is predicted from nothing
        scores[batch] = ((logprobs_BL * counted_BL).sum(1) / counted_BL.sum(1)).double().cpu().numpy()
    return scores


def padded(rows: Sequence[list[int]], pad: int) -> torch.Tensor:
    """[B, L] of rows of unequal length, the longest first."""
    return torch.tensor([[*row, *[pad] * (len(rows[0]) - len(row))] for row in rows])
