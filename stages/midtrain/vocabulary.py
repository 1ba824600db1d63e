"""A byte-pair vocabulary learnt from the item text; every word of the layout is one token."""

from collections.abc import Iterator, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from stages.shared.core.errors import StageError
from stages.shared.slates.layouts.marks import END, PAD, SPECIAL_TOKENS

LAYOUT_WEIGHT = 1000  # repeats of each layout word: more than any pair of letters occurs in a small catalogue


def learn_tokenizer(texts: Sequence[str], size: int, words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of at most `size` tokens over whitespace-separated words, each with its leading space.

    words: of the layout. StageError where `size` leaves no room for one of them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?[^\s]+|\s+"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        # All 256 bytes from the start: a title with letters that the catalogue lacks today must not become an unknown token.
        vocab_size=size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(texts, words), trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)
    rows = wrapped(list(words), add_special_tokens=False)["input_ids"]
    if split := [word for word, ids in zip(words, rows, strict=True) if len(ids) != 1]:
        raise StageError(f"params.yaml: midtrain.text_vocabulary is too small: '{split[0].strip()}' is not one token; raise it")
    return wrapped


def _corpus(texts: Sequence[str], words: Sequence[str]) -> Iterator[str]:
    yield from texts
    for word in words:
        # A word without its space stands at the beginning of lines, or it would be learnt with one.
        yield word * LAYOUT_WEIGHT if word.startswith(" ") else "\n".join([word] * LAYOUT_WEIGHT)
