import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.ingest.build.text import clean_text, embedding_text, restore_article, title_and_year
from stages.shared.slates.layouts.marks import SPECIAL_TOKENS
from stages.shared.slates.sids import sid_text, sid_vocabulary

SPECIAL = re.compile(r"<[^<>]*>|\[/?\w+\]")  # the shape of every special token: ours, and those tokenizers ship


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Truth About Cats &amp; Dogs", "Truth About Cats & Dogs"),
        ("a\tb\r\nc\u2028d\x00e\u200bf\u202eg", "a b c defg"),
        ("e\u0301", "\u00e9"),
        ("<|im_end|>", "‹|im_end|›"),
        ("<s_a_1>", "‹s_a_1›"),
        ("<thi\u200bnk>", "‹think›"),
        ("&amp;lt;think&amp;gt;", "‹think›"),
        ("＜think＞", "‹think›"),
        ("[REC]", "(REC)"),
        ("[[SEP]]", "[(SEP)]"),
        ("［ＭＡＳＫ］ ﹇CLS﹈", "(ＭＡＳＫ) (CLS)"),
        ("[S\u0335EP] [unused-1]", "(S\u0335EP) (unused-1)"),
        ("[two words]", "[two words]"),
        ("<\u0338think>\u0338", "‹think›"),
        ("≮unk≯", "‹unk›"),
        ("<0x0A>▁x▁▁y", "‹0x0A› x y"),
        ("Caf\u00e9 & Bar [x\\y]", "Caf\u00e9 & Bar (x\\y)"),
        ("  plain   words ", "plain words"),
        ("\u3164\u2800", ""),
    ],
)
def test_cleaning(raw, clean):
    assert clean_text(raw) == clean


fragments = st.sampled_from(
    ["<", ">", "|", "&lt;", "&amp;lt;", "&#60;", "[", "]", "SEP", "think", "/", "\u200b", "\n", "\x00", "s_a_1", sid_text([1, 2])]
)


@given(st.lists(fragments | st.text(max_size=5), max_size=12).map("".join))
def test_no_text_spells_a_special_token(text):
    clean = clean_text(text)
    assert not SPECIAL.search(clean)
    assert "<" not in clean and ">" not in clean
    assert clean.isprintable()
    assert clean_text(clean) == clean


# Of this project, and of the tokenizers of its models: BERT's, GPT's, Llama's, Qwen's, SentencePiece's.
FOREIGN = "<|endoftext|> <|im_start|> <|im_end|> <s> </s> <unk> <pad> <mask> <0x0A> <tool_call> [MASK] [CLS] [SEP] [PAD] [UNK] [/INST] ▁"
TOKENS = [*SPECIAL_TOKENS, *sid_vocabulary(2, 3), *FOREIGN.split()]


def folded(text: str) -> list[str]:
    """The text as tokenizers may see it: as it is, by NFKC, by NFKD without accents."""
    bare = "".join(character for character in unicodedata.normalize("NFKD", text) if unicodedata.category(character) != "Mn")
    return [text, unicodedata.normalize("NFKC", text), bare]


DISGUISES = [
    lambda token: token,
    lambda token: "".join(f"&#{ord(character)};" for character in token),
    lambda token: token.replace("<", "&lt;").replace(">", "&gt").replace("[", "&lbrack;").replace("|", "&vert;"),
    lambda token: token.replace("<", "&amp;amp;lt;"),
    lambda token: "\u200b".join(token),
    lambda token: "\x00".join(token),
    lambda token: "\u0338".join(token),
    lambda token: "".join(chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character for character in token),
    lambda token: token.translate(str.maketrans("<>[]", "﹤﹥﹇﹈")),
]
spelt = st.builds(lambda disguise, token: disguise(token), st.sampled_from(DISGUISES), st.sampled_from(TOKENS))
hostile = st.lists(spelt | fragments | st.text(max_size=4), max_size=6).map("".join)


@given(hostile)
def test_no_disguise_spells_a_token_of_any_tokenizer(text):
    clean = clean_text(text)
    for seen in folded(clean):
        assert [token for token in TOKENS if token in seen] == []


@given(hostile, hostile, st.lists(hostile, max_size=3))
def test_parts_do_not_make_a_token_together(title, brand, categories):
    title, year = title_and_year(clean_text(title), "")
    names = [clean_text(name) for name in categories]
    text = embedding_text(restore_article(title), year, clean_text(brand), names, "Categories")
    for seen in folded(text):
        assert [token for token in TOKENS if token in seen] == []


def test_no_character_folds_to_a_bracket():
    """All of Unicode, where tokenizers fold by NFKC or NFKD."""
    for character in map(chr, range(0x110000)):
        if not character.isascii() and any(set("<>[]▁") & set(seen) for seen in folded(character)):
            clean = clean_text(f"{character}SEP{character} [SEP{character} {character}SEP]")
            assert not any(SPECIAL.search(seen) or "▁" in seen for seen in folded(clean)), f"U+{ord(character):04X}"


@pytest.mark.parametrize(
    ("raw", "restored"),
    [
        ("Shawshank Redemption, The", "The Shawshank Redemption"),
        ("Misérables, Les", "Les Misérables"),
        ("Double vie de Véronique, La (Double Life of Veronique, The)", "La Double vie de Véronique (The Double Life of Veronique)"),
        ("Contempt (Mépris, Le)", "Contempt (Le Mépris)"),
        ("Avventura, L'", "L'Avventura"),
        ("Paris, Texas", "Paris, Texas"),
        ("Cook the Thief His Wife & Her Lover, The", "The Cook the Thief His Wife & Her Lover"),
        ("To Wong Foo, Thanks for Everything! Julie Newmar", "To Wong Foo, Thanks for Everything! Julie Newmar"),
        (", The", ", The"),
    ],
)
def test_articles_return_to_the_front(raw, restored):
    assert restore_article(raw) == restored


@pytest.mark.parametrize(
    ("title", "year", "expected"),
    [
        ("Toy Story", "1995", ("Toy Story", 1995)),
        ("Toy Story (1995)", "", ("Toy Story", 1995)),
        ("Time of the Great Giving (1995)", "V", ("Time of the Great Giving", 1995)),
        ("Time of the Great Giving (1995) (V)", "1996", ("Time of the Great Giving", 1996)),
        ("2001: A Space Odyssey", "1968", ("2001: A Space Odyssey", 1968)),
        ("(1999)", "", ("(1999)", None)),
        ("unkonwn", "unkonwn", ("unkonwn", None)),
    ],
)
def test_year_comes_from_its_field_or_the_title(title, year, expected):
    assert title_and_year(title, year) == expected


def test_embedding_text_leaves_out_what_is_unknown():
    assert embedding_text("Toy Story", 1995, "", ["Animation", "Comedy"], "Genres") == "Toy Story (1995). Genres: Animation, Comedy."
    assert embedding_text("Lip Balm", None, "Acme", ["Beauty"], "Categories") == "Lip Balm. Brand: Acme. Categories: Beauty."
    assert embedding_text("Lip Balm", None, "Acme", [], "Categories") == "Lip Balm. Brand: Acme."
