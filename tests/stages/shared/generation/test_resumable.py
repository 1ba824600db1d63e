"""Answers that outlive a kill, without a model: the engine counts what it is asked."""

from dataclasses import asdict
from pathlib import Path

import pytest

from stages.shared.generation.base import Completion, Sampling
from stages.shared.generation.journal import AnswerJournal, key_of
from stages.shared.generation.resumable import ResumableEngine, folder_sha256
from tests.stages.shared.slates.test_json_constraint import constraint

SAMPLING = Sampling(4, temperature=0.5, samples=2, seed=1)


class CountingEngine:
    """Says the prompt and its place; is killed after `chunks` calls."""

    def __init__(self, chunks: int = 99):
        self.chunks, self.asked = chunks, []

    def generate(self, prompts, sampling, constraints=None, places=None):
        if len(self.asked) == self.chunks:
            raise KeyboardInterrupt
        self.asked.append((prompts, places))
        return [
            [Completion([*prompt, place, sample], [-0.1]) for sample in range(2)] for prompt, place in zip(prompts, places, strict=True)
        ]


def resumable(engine, folder: Path, identity="model", chunk=2):
    return ResumableEngine(engine, AnswerJournal("traces", folder), identity, chunk)


PROMPTS = [[10], [11], [12], [13], [14]]


def test_a_killed_run_asks_for_the_rest_alone_and_ends_with_the_same(tmp_path):
    whole = resumable(CountingEngine(), tmp_path / "a").generate(PROMPTS, SAMPLING)
    with pytest.raises(KeyboardInterrupt):
        resumable(CountingEngine(chunks=2), tmp_path / "b").generate(PROMPTS, SAMPLING)
    rest = CountingEngine()
    assert resumable(rest, tmp_path / "b").generate(PROMPTS, SAMPLING) == whole
    assert rest.asked == [([[14]], [4])], "with the place that it has among all"
    none = CountingEngine(chunks=0)
    assert resumable(none, tmp_path / "b").generate(PROMPTS, SAMPLING) == whole


@pytest.mark.parametrize("change", ["model", "sampling", "seed", "prompt"])
def test_what_decides_an_answer_decides_its_key(tmp_path, change):
    resumable(CountingEngine(), tmp_path).generate(PROMPTS[:1], SAMPLING)
    again = CountingEngine()
    sampling = Sampling(**{**asdict(SAMPLING), **{"sampling": {"top_p": 0.9}, "seed": {"seed": 2}}.get(change, {})})
    prompts = [[99]] if change == "prompt" else PROMPTS[:1]
    resumable(again, tmp_path, identity="other" if change == "model" else "model").generate(prompts, sampling)
    assert len(again.asked) == 1


def test_a_dialogues_constraint_is_part_of_the_key_but_for_its_grammar(tmp_path):
    rules = [constraint("letters"), constraint("sids")]
    first, again = CountingEngine(), CountingEngine()
    whole = resumable(first, tmp_path).generate(PROMPTS[:1], SAMPLING, rules[:1])
    assert resumable(again, tmp_path).generate(PROMPTS[:1], SAMPLING, rules[:1]) == whole and not again.asked
    resumable(again, tmp_path).generate(PROMPTS[:1], SAMPLING, rules[1:])
    assert len(again.asked) == 1, "other names"


def test_a_line_cut_short_or_damaged_is_asked_again_and_harms_no_other(tmp_path):
    journal = AnswerJournal("traces", tmp_path)
    journal.put("a", {"x": 1})
    journal.put("b", {"x": 2})
    content = journal.path.read_bytes()
    for cut in range(content.index(b"\n\n") + 2, len(content)):
        journal.path.write_bytes(content[:cut])
        torn = AnswerJournal("traces", tmp_path)
        assert torn.get("a") == {"x": 1} and (torn.get("b") is None or cut == len(content) - 1)
        torn.put("c", 3)
        assert AnswerJournal("traces", tmp_path).get("c") == 3 and AnswerJournal("traces", tmp_path).get("a") == {"x": 1}
    journal.path.write_bytes(content.replace(b'"x": 1', b'"x": 7'))
    damaged = AnswerJournal("traces", tmp_path)
    assert damaged.get("a") is None and damaged.get("b") == {"x": 2}
    damaged.clear()
    assert not journal.path.exists() and AnswerJournal("traces", tmp_path).get("b") is None


def test_keys_do_not_hang_on_the_order_of_fields_and_folders_on_every_file(tmp_path):
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1}) != key_of({"a": 1, "b": [3]})
    (tmp_path / "model.safetensors").write_bytes(b"1")
    before = folder_sha256(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with_tokenizer = folder_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert len({before, with_tokenizer, folder_sha256(tmp_path)}) == 3
