import math

import pytest
import torch

from stages.shared.lm.perplexity import perplexity
from tests.support.tiny_models import tiny_model, tiny_tokenizer

TEXTS = ["history: the taste of Köln", "A s3 B s4 candidates:", "x"]
TOKENIZER = tiny_tokenizer()


def test_of_a_model_that_knows_nothing_it_is_the_vocabulary():
    model = tiny_model(512)
    torch.nn.init.zeros_(model.get_input_embeddings().weight)
    figures = perplexity(model, TOKENIZER, TEXTS)
    assert figures["perplexity"] == pytest.approx(512)
    rows = [TOKENIZER(text, add_special_tokens=False, return_offsets_mapping=True) for text in TEXTS[:2]]
    tokens = sum(len(row["input_ids"]) - 1 for row in rows)
    size = sum(len(text[row["offset_mapping"][0][1] :].encode()) for text, row in zip(TEXTS, rows, strict=False))
    assert figures["bits_per_byte"] == pytest.approx(9 * tokens / size)


def test_against_the_models_own_loss():
    model = tiny_model(512)
    ids = TOKENIZER(TEXTS[0], return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert perplexity(model, TOKENIZER, TEXTS[:1])["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)


def test_ids_left_out_make_the_model_the_smaller_one():
    whole, small = tiny_model(640), tiny_model(512)
    small.load_state_dict({name: tensor[:512] if tensor.shape[0] == 640 else tensor for name, tensor in whole.state_dict().items()})
    expected = perplexity(small, TOKENIZER, TEXTS)
    assert perplexity(whole, TOKENIZER, TEXTS, without=range(512, 640)) == pytest.approx(expected, rel=1e-5)
    assert perplexity(whole, TOKENIZER, TEXTS)["perplexity"] > expected["perplexity"]
