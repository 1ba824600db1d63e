"""What both models read to calibrate one and to compare them: text that the pipeline really asks and answers with."""

from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

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
