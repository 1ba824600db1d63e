"""What travels to an engine process and back, and what is said of one that has gone."""

import json
from dataclasses import asdict

import pytest

from stages.shared.generation.engine_process import EngineEnded, is_of_launcher, without_grammar
from stages.shared.generation.engine_worker import constraint as arrived
from tests.stages.shared.slates.test_constraint import constraint as compact
from tests.stages.shared.slates.test_json_constraint import constraint as chat
from tests.support.chat_models import chat_folder


@pytest.mark.parametrize("enforced", [True, False])
def test_a_constraint_arrives_as_it_was_sent(tmp_path, enforced):
    """One of the layout chat without its tables, which the other side makes of the model's tokenizer."""
    folder = chat_folder(tmp_path / "model")
    for sent in (compact(4, enforced=enforced), chat(enforced=enforced)):
        line = json.dumps({**asdict(sent), **without_grammar(sent)})
        assert len(line) < 10_000, "no table of a whole vocabulary"
        got = arrived(json.loads(line), folder)
        state, other = sent.start(), got.start()
        for _ in range(60):
            assert list(state.mask().ids) == list(other.mask().ids) and state.mask().allow == other.mask().allow
            assert state.draft() == other.draft()
            token = next(iter(state.draft()), int(state.mask().ids[0]) if state.mask().allow else 7)
            state.advance(token)
            other.advance(token)


def test_an_engine_is_no_part_of_the_training_that_starts_it():
    assert all(map(is_of_launcher, ("RANK", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "ROLE_RANK")))
    assert not any(map(is_of_launcher, ("PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "RANKING")))


def test_a_signal_is_named():
    assert EngineEnded("an engine", -9, "").how == "was ended by signal 9 (SIGKILL)"
    assert EngineEnded("an engine", 1, "out of memory").how == "ended with code 1: out of memory"
