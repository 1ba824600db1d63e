from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from stages.midtrain.ordinary_text import read_text, replay_documents
from stages.midtrain.params import TEXT
from stages.shared.core.errors import StageError

ROOT = Path(__file__).resolve().parents[3]


def test_the_text_of_the_project_is_prose_and_is_split_for_good():
    text = read_text(ROOT / TEXT)
    assert len(text.replayed) > 250 and len(text.kept_back) > 25 and not set(text.replayed) & set(text.kept_back)
    assert sum(len(line) for line in text.kept_back) > 8000 and all(line.isprintable() for line in text.replayed)
    drawn = [document[0][0] for document in islice(replay_documents(text.replayed, np.random.default_rng(0)), 500)]
    assert set(drawn) <= set(text.replayed) and len(set(drawn)) > 150


def test_a_text_spells_no_mark_and_repeats_count_once(tmp_path):
    path = tmp_path / "text.txt"
    lines = [f"Line {number}, <|end|> and <s_a_3> and </think> but a < b." for number in range(20)]
    path.write_text("\n\n".join([*lines, lines[0]]), encoding="utf-8")
    text = read_text(path)
    assert len(text.replayed) == 18 and len(text.kept_back) == 2
    assert text.replayed[0] == "Line 0, < |end|> and < s_a_3> and < /think> but a < b."


def test_what_is_no_text(tmp_path):
    with pytest.raises(StageError, match=r"no such file; name a text .* in midtrain\.text"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(StageError, match="not a UTF-8 text"):
        read_text(tmp_path)
    (tmp_path / "short.txt").write_text("one\ntwo\n")
    with pytest.raises(StageError, match=r"2 different paragraphs.*give 20 or more"):
        read_text(tmp_path / "short.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StageError, match="not a UTF-8 text"):
        read_text(tmp_path / "bytes.txt")
