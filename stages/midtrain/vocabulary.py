"""A byte-pair vocabulary learnt from the item text; every word of the prompt layout is one token."""

from collections.abc import Iterator, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from stages.shared.slates.prompts import END, PAD, SPECIAL_TOKENS, template_words

LAYOUT_WEIGHT = 1000  # repeats of each layout word: more than any pair of letters occurs in a small catalogue


def learn_tokenizer(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of at most `size` tokens over whitespace-separated words, each with its leading space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?[^\s]+|\s+"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)


def _corpus(texts: Sequence[str]) -> Iterator[str]:
    yield from texts
    for word in template_words():
        yield word * LAYOUT_WEIGHT if word.startswith(" ") else " ".join([word] * LAYOUT_WEIGHT)
