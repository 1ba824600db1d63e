"""Semantic IDs as text: `<|sid_begin|><s_a_57><s_b_7><s_c_23><s_d_4><|sid_end|>` (GR2, arXiv 2602.07774)."""

import re
from collections.abc import Sequence
from string import ascii_lowercase

SID_BEGIN = "<|sid_begin|>"
SID_END = "<|sid_end|>"
CODE_TOKEN = re.compile(r"<s_([a-z])_(\d+)>")  # level as a letter, code


def code_token(level: int, code: int) -> str:
    """The vocabulary token of `code` at `level` (both from 0)."""
    return f"<s_{ascii_lowercase[level]}_{code}>"


def sid_text(codes: Sequence[int]) -> str:
    """Codes (one a level) -> the SID as the model reads and writes it."""
    return SID_BEGIN + "".join(code_token(level, code) for level, code in enumerate(codes)) + SID_END


def sid_vocabulary(levels: int, codebook_size: int) -> list[str]:
    """Every token a SID may hold: begin, end, then level by level."""
    codes = [code_token(level, code) for level in range(levels) for code in range(codebook_size)]
    return [SID_BEGIN, SID_END, *codes]
