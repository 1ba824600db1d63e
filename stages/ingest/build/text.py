"""Cleans text from outside. It is data: whatever it says, it cannot spell a token that a model treats as special."""

import html
import re
import unicodedata

# Special tokens, this project's and those that tokenizers ship (<|im_end|>, <s_a_1>, <think>, </s>, <unk>, <0x0A>), open with `<`. The
# other family is BERT's [SEP], [MASK]. Every character that a tokenizer may fold to one of the four brackets counts too (NFKD, accents
# stripped); a test walks all of Unicode for them. U+2581 is how SentencePiece writes a space; the last five look like nothing at all.
_HARMLESS = str.maketrans(
    {
        **dict.fromkeys("<＜﹤≮", "‹"),
        **dict.fromkeys(">＞﹥≯", "›"),
        **dict.fromkeys("［﹇", "["),
        **dict.fromkeys("］﹈", "]"),
        **dict.fromkeys("▁\u115f\u1160\u3164\uffa0\u2800", " "),
    }
)
_SQUARE = re.compile(r"\[([^\s\[\]()]+)\]")
_PLAIN = re.compile(r"[ !-%'-;=?-Z^-~]*")  # ASCII without & < > [ \ ]: nothing to clean but spaces
_ARTICLES = "The|A|An|Les|La|Le|L'|Il|Lo|El|Los|Las|Das|Der|Die|Den|Det"
_INVERTED = re.compile(rf"^(?P<title>[^()]*[^()\s]), (?P<article>{_ARTICLES})(?P<rest>\s*\(.*\))?$")
_PARENTHESISED = re.compile(r"\(([^()]*)\)")
_YEAR_SUFFIX = re.compile(r"\s*\((\d{4})\)(?:\s*\(V\))?$")  # (V): direct to video, as GroupLens writes it


def clean_text(text: str) -> str:
    """One line of text: entities decoded, control and invisible characters gone, brackets made harmless. Idempotent."""
    if _PLAIN.fullmatch(text):
        return " ".join(text.split())
    while (cleaned := _clean_once(text)) != text:  # once more: `&amp;lt;` holds an entity within an entity
        text = cleaned
    return text


def _clean_once(text: str) -> str:
    # NFC, not NFKC: that would fold ligatures and superscripts, which belong to a title.
    text = unicodedata.normalize("NFC", html.unescape(text))
    text = "".join(" " if character.isspace() else character for character in text)
    # Category C: control, format (such as zero width) and private characters, which a reader does not see and a tokenizer does.
    text = "".join(character for character in text if not unicodedata.category(character).startswith("C"))
    text = _SQUARE.sub(r"(\1)", text.translate(_HARMLESS))
    return " ".join(text.split())


def restore_article(title: str) -> str:
    """`Shawshank Redemption, The` -> `The Shawshank Redemption`, also within parentheses."""
    if ", " not in title:  # as in most
        return title
    title = _PARENTHESISED.sub(lambda match: f"({_restore(match[1])})", title)
    return _restore(title)


def _restore(title: str) -> str:
    match = _INVERTED.match(title)
    if not match:
        return title
    space = "" if match["article"].endswith("'") else " "
    return f"{match['article']}{space}{match['title']}{match['rest'] or ''}"


def title_and_year(title: str, year: str) -> tuple[str, int | None]:
    """The title without a year at its end, and the year: from its own field, else from the title, else None."""
    # 1999.0, as pandas writes whole numbers beside missing ones; 1999-05-01.
    year = year and re.sub(r"\.0+$|(?<=^\d{4})-\d\d(-\d\d.*)?$", "", year)
    suffix = _YEAR_SUFFIX.search(title)
    if suffix and title[: suffix.start()]:
        title = title[: suffix.start()]
        year = year if re.fullmatch(r"\d{4}", year) else suffix[1]
    return title, int(year) if year and re.fullmatch(r"\d{4}", year) and year.isascii() else None


def embedding_text(title: str, year: int | None, brand: str, categories: list[str], category_word: str) -> str:
    """What the embedding model reads: `Title (year). Brand: B. Genres: A, B.`, each part only where known."""
    sentences = [f"{title} ({year})." if year is not None else f"{title}."]
    if brand:
        sentences.append(f"Brand: {brand}.")
    if categories:
        sentences.append(f"{category_word}: {', '.join(categories)}.")
    return " ".join(sentences)
