"""One-pass mode as an ordinary CrossEncoder of sentence-transformers, which loads it without code from outside.

A decoder with a head for sequence classification scores the last token of what it reads, with one linear row a label. With the language
model's own output rows of the candidates' letters for that head, label k is the logit of letter k as the first token of an answer: FIRST
(arXiv 2406.15657), all candidates of a slate in one pass. The library's other form, a LogitScore behind a causal model, reads the logit of
one token, the same for every pair, so it cannot score (prompt, letter) for more than one letter.
"""

import os
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from stages.serve.one_pass import OnePass
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, write_json
from stages.shared.lm.models import save_model
from stages.shared.slates.layouts.marks import letters
from stages.shared.slates.slate import Slate

# Largest difference of a probability from what one pass says: other orders of the same sums.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
HALF_TOLERANCE = 0.02  # of the types with fewer bits
# A prompt is read as it is: without the tokens and the chat template that a tokenizer may put around a text, and whole or not at all.
READ_AS_IT_IS = {"text": {"add_special_tokens": False, "truncation": False, "padding_side": "right"}}
# A type of AutoTokenizer whose class takes tokenizer.json as it is. By the model's own type, as of qwen2, it may put another splitting of
# words in the place of what the file says (stages/shared/lm/models.py).
TOKENIZER = {"tokenizer_type": "granite"}
SETTINGS = "sentence_bert_config.json"  # the library's name for those of the first module
TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "logits"}}
CARD = Template("""\
---
library_name: sentence-transformers
pipeline_tag: text-ranking
tags: [cross-encoder, reranker]
---
# A listwise reranker as a CrossEncoder

It reads a whole slate in one prompt (a history, and $count candidates with the letters $first to $last), and gives each letter's logit
as the first one of the answer (FIRST, arXiv 2406.15657): label k is the candidate with letter k. `gr2 export prompts` makes the prompts.

```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("FOLDER")
scores = model.predict([(prompt, "") for prompt in prompts], apply_softmax=True)  # [prompts, $count]: to be named first
order = (-scores[0]).argsort(kind="stable")
```

The second text of a pair stays empty. `CrossEncoder.rank` refuses this model, for it takes one document at a time.
""")


def as_classifier(one_pass: OnePass, size: int) -> PreTrainedModel:
    """The model's layers, not copied, under a head with `size` labels: the output rows of the first letters."""
    model, tokenizer = one_pass.model, one_pass.encoded.tokenizer
    config, output = deepcopy(model.config), model.get_output_embeddings()
    if getattr(output, "bias", None) is not None:
        raise StageError("its output layer has a bias, which a head for classification has not: no CrossEncoder can be made of it")
    if tokenizer.pad_token_id is None:
        raise StageError("its tokenizer has no padding token, by which the end of a prompt is found: no CrossEncoder can be made of it")
    config.pad_token_id = tokenizer.pad_token_id
    config.id2label = dict(enumerate(name.strip() for name in letters(size)))
    config.label2id = {name: label for label, name in config.id2label.items()}
    try:
        with torch.device("meta"):  # its layers are those of `model`
            classifier: Any = AutoModelForSequenceClassification.from_config(config, dtype=model.dtype)
    except ValueError:
        raise StageError(f"transformers has no head for sequence classification on a model of type {config.model_type}") from None
    if not isinstance(getattr(classifier, "score", None), torch.nn.Linear) or classifier.base_model_prefix != model.base_model_prefix:
        raise StageError(f"a model of type {config.model_type} has another form of classification head than decoders have")
    setattr(classifier, classifier.base_model_prefix, model.base_model)
    rows_KD = output.weight[one_pass.letters[:size]].detach().clone()
    classifier.score = torch.nn.Linear(rows_KD.shape[1], size, bias=False, device="meta")
    classifier.score.weight = torch.nn.Parameter(rows_KD)
    return classifier.eval()


def write_cross_encoder(one_pass: OnePass, size: int, folder: Path) -> None:
    """folder: is made. size: candidates of a slate, at most the letters of the layout."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is first imported
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer

    save_model(as_classifier(one_pass, size), one_pass.encoded.tokenizer, folder)
    transformer = Transformer(
        str(folder),
        transformer_task="sequence-classification",
        processing_kwargs=READ_AS_IT_IS,
        modality_config=TEXT_ONLY,
        module_output_name="scores",
        model_kwargs={"local_files_only": True},
        processor_kwargs={"local_files_only": True, **TOKENIZER},
    )
    encoder = CrossEncoder(modules=[transformer], device="cpu", activation_fn=torch.nn.Identity())
    encoder.save_pretrained(str(folder), create_model_card=False)
    write_json(folder / SETTINGS, {**read_json(folder / SETTINGS), "processor_kwargs": TOKENIZER})  # read by the library, never written
    names = [name.strip() for name in letters(size)]
    (folder / "README.md").write_text(CARD.substitute(count=size, first=names[0], last=names[-1]), encoding="utf-8")


def check_cross_encoder(one_pass: OnePass, slates: Sequence[Slate], folder: Path) -> float:
    """The largest difference between its probabilities and those of one pass, on slates of up to as many candidates as it has labels.

    StageError where it is more than rounding: whoever loads the folder would get other orders.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(str(folder), device=str(one_pass.model.device), local_files_only=True)
    logits_NK = encoder.predict([(one_pass.encoded.layout.prompt(slate), "") for slate in slates], batch_size=one_pass.batch_size)
    largest = 0.0
    for slate, logits_K in zip(slates, logits_NK, strict=True):
        shown = torch.from_numpy(logits_K[: len(slate.candidates)]).double().softmax(dim=0).numpy()
        largest = max(largest, float(np.abs(shown - one_pass.rank([slate])[1][0]).max()))
    if not largest <= TOLERANCE.get(one_pass.model.dtype, HALF_TOLERANCE):
        raise StageError(
            f"{folder}: as a CrossEncoder its probabilities differ by up to {largest:.2g} from those of one pass; does the library read "
            f"its tokenizer otherwise ({SETTINGS}: processor_kwargs)?"
        )
    return largest
