import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.lm.encoding import WeightedExample, encode, pack
from stages.shared.slates.layouts.marks import END
from stages.shared.slates.sids import sid_text
from tests.support.tiny_models import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
SID = sid_text([1, 2, 3, 4])


def weight_of(example: WeightedExample, tokens: int, at: int = 0) -> list[float]:
    return example.weights[at : at + tokens]


def test_each_token_has_the_weight_of_its_segment():
    segments = [("history:" + SID, 0.0), (" taste: co7", 0.5), (SID + END, 1.0)]
    (example,) = encode([segments], TOKENIZER)
    assert TOKENIZER.decode(example.ids) == "".join(text for text, _ in segments)
    assert example.weights == [0.0] * 7 + [0.5] * 2 + [1.0] * 7


@pytest.mark.parametrize("title", ["Cité des enfants perdus", "Шоссе", "七人の侍", "Amélie 🎬 naïve", "e\u0301te\u0301"])
def test_letters_of_several_bytes_do_not_shift_the_borders(title):
    """Offsets count characters, a byte-level tokenizer cuts inside of them; a shifted border would weigh the wrong tokens."""
    segments = [(f" {title}", 0.0), (SID, 1.0), (f" {title} {title}", 0.25), (SID, 1.0)]
    (example,) = encode([segments], TOKENIZER)
    expected = [(TOKENIZER.encode(text, add_special_tokens=False), weight) for text, weight in segments]
    assert example.ids == [token for ids, _ in expected for token in ids]
    assert example.weights == [weight for ids, weight in expected for _ in ids]


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=0, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(words, st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=6))
def test_any_text_between_sids_keeps_its_weight(parts):
    segments = [segment for text, weight in parts for segment in ((SID, 2.0), (text, weight))]
    (example,) = encode([segments], TOKENIZER)
    expected = [weight for text, weight in segments for _ in TOKENIZER.encode(text, add_special_tokens=False)]
    assert example.weights == expected


def test_a_token_over_a_border_belongs_to_where_it_starts():
    (example,) = encode([[(" c", 0.0), ("o7", 1.0)]], TOKENIZER)
    assert (example.ids, example.weights) == (TOKENIZER.encode(" co7", add_special_tokens=False), [0.0])


def numbered(lengths: list[int]) -> list[WeightedExample]:
    return [WeightedExample([100 * place + step for step in range(length)], [0.5] * length) for place, length in enumerate(lengths)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 15), max_size=20), st.integers(1, 20))
def test_rows_are_never_longer_and_lose_only_what_is_cut(lengths, longest):
    examples = numbered(lengths)
    rows = pack(examples, longest)
    assert all(0 < len(row.ids) == len(row.weights) <= longest for row in rows)
    assert [token for row in rows for token in row.ids] == [token for example in examples for token in example.ids[:longest]]
    firsts = {example.ids[0] for example in examples}
    assert all((weight == 0) == (token in firsts) for row in rows for token, weight in zip(row.ids, row.weights, strict=True))


def test_short_examples_share_a_row():
    assert [len(row.ids) for row in pack(numbered([3, 3, 3, 9, 1, 1]), 7)] == [6, 3, 7, 2]


def test_documents_of_a_row_have_positions_of_their_own():
    first, *_ = pack(numbered([3, 4, 9]), 7)
    assert first.starts == [0, 3] and first.positions() == [0, 1, 2, 0, 1, 2, 3]


def test_nothing_is_encoded_as_nothing():
    assert encode([], tiny_tokenizer()) == []
