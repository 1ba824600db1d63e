"""A tokenizer of some hundred tokens and a random decoder of some ten thousand weights, for tests that need real ones."""

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stages.shared.lm.models import extend_vocabulary, save_model
from stages.shared.slates.layouts.compact import CompactLayout
from stages.shared.slates.layouts.marks import END, PAD, SPECIAL_TOKENS
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Catalog

LEVELS, CODEBOOK = 4, 8
LAYOUT_WORDS = CompactLayout(Catalog([], [], []), PromptParams()).words()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE in which each word of the layout, and each SID token of LEVELS levels with CODEBOOK codes, is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r" ?[^\s]+|\s+"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([word * 20 if word.startswith(" ") else f"{word} " * 20 for word in LAYOUT_WORDS], trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)
    extend_vocabulary(wrapped, LEVELS, CODEBOOK)
    return wrapped


def tiny_model(vocabulary: int, pad_id: int = 0, end_id: int = 1, seed: int = 0, tied: bool = True) -> LlamaForCausalLM:
    """Weights wide enough apart that the likeliest token is far from the next: greedy decoding must not hang on rounding."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the least that vLLM serves on a CPU
        intermediate_size=96,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=tied,
        bos_token_id=None,
        pad_token_id=pad_id,
        eos_token_id=end_id,
    )
    return LlamaForCausalLM(config).eval()


def tiny_folder(folder: Path, seed: int = 0, tied: bool = True) -> Path:
    tokenizer = tiny_tokenizer()
    vocabulary = -(-len(tokenizer) // 64) * 64
    save_model(tiny_model(vocabulary, tokenizer.pad_token_id, tokenizer.eos_token_id, seed, tied), tokenizer, folder)
    return folder


def random_prompts(count: int, vocabulary: int, shortest: int = 20, longest: int = 30, seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(2, vocabulary, (length,), generator=generator).tolist() for length in lengths]
