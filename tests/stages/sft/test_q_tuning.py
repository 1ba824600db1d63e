"""Q-Tuning against cases computed by hand, and in a whole run."""

import numpy as np
import pytest
import torch

from stages.sft.q_tuning import QUADRANTS, TokenErrors, plane, pruned, pruned_places, ranked, token_errors, token_scores
from stages.sft.rows import answer_start, trace_examples
from stages.shared.core.outputs import read_json
from stages.shared.lm.encoding import WeightedExample
from stages.shared.training.lora import sid_and_layout_ids
from tests.stages.sft.test_sft import SMALL, TOKENIZER, TRACES, project, run, small  # noqa: F401
from tests.support.tiny_models import tiny_model

NOISE, MISCONCEPTION, REDUNDANT, CALIBRATION = range(4)


def test_ranks_lie_between_zero_and_one():
    assert ranked(np.array([5.0, 1.0, 3.0, 3.0])).tolist() == [7 / 8, 1 / 8, 3 / 8, 5 / 8]


def test_quadrants_by_hand():
    """Eight traces; ranks of perplexity 0..7 as they come, entropies so that each quadrant has two.

    The least quantile that keeps a trace, in sixteenths: max(1 - e, u) or max(e, 1 - u) with e, u = (2 rank + 1) / 16:
    trace 0 (e 1, u 15): calibration max(1, 1) = 1; trace 1 (3, 1): misconception max(13, 1), calibration max(3, 15): 13; ...
    """
    perplexity, entropy = np.array([1, 2, 3, 4, 5, 6, 7, 8.0]), np.array([8, 1, 6, 2, 3, 7, 5, 4.0])
    found = plane(perplexity, entropy, keep=0.5)
    names = [QUADRANTS[place] for place in found.quadrant_N]
    assert names == ["calibration", "redundant", "calibration", "redundant", "misconception", "noise", "noise", "misconception"]
    # Sixteenths: 1; 13; 5; 9 (misconception max(9, 3)); 7 (max(7, 5)); 11 against 13 -> calibration 11; 9 (max(3, 9)); 7 (max(1, 7)).
    assert found.kept_N.tolist() == [CALIBRATION, -1, CALIBRATION, -1, MISCONCEPTION, -1, -1, MISCONCEPTION]
    # The next two are those at 9, one on each side of the medians: more than the two quadrants hold.
    assert plane(perplexity, entropy, keep=0.75).kept_N.tolist() == [
        CALIBRATION, -1, CALIBRATION, MISCONCEPTION, MISCONCEPTION, -1, MISCONCEPTION, MISCONCEPTION,
    ]  # fmt: skip
    assert plane(perplexity, entropy, keep=0.125).kept_N.tolist() == [CALIBRATION, *[-1] * 7]
    assert (plane(perplexity, entropy, keep=1.0).kept_N >= 0).all() and (plane(perplexity, entropy, keep=0.01).kept_N >= 0).sum() == 1


def test_scores_count_the_neighbours_in():
    """(1 - 1/2) ppl + 1/2 of the neighbours' mean, at the ends the token itself in the place of the missing one."""
    scores = token_scores(np.log([2.0, 8.0, 4.0]))
    assert scores == pytest.approx([1 + 0.5 * (2 + 8) / 2, 4 + 0.5 * (2 + 4) / 2, 2 + 0.5 * (8 + 4) / 2])


def test_the_worst_tokens_go_and_protected_ones_stay():
    errors = TokenErrors(np.array([3, 4, 5, 6, 7]), np.log([2.0, 64.0, 4.0, 2.0, 1.0]), np.ones(5))
    nobody = np.zeros(5, dtype=bool)
    # Scores: 17.5, 33.5, 18.5, 2.25, 1.25.
    assert pruned_places(errors, nobody, keep=0.6) == [4, 5]
    assert pruned_places(errors, np.array([False, True, False, False, False]), keep=0.5) == [3, 5], "half of the four others"
    assert pruned_places(errors, ~nobody, keep=0.1) == [] == pruned_places(errors, nobody, keep=1.0)


def test_calibration_stays_whole_and_misconceptions_lose_tokens():
    """Two traces of six tokens: 2 is a SID, the answer begins at place 4."""
    examples = [WeightedExample([9, 5, 2, 6, 7, 8], [0.0, 1.0, 1.0, 1.0, 0.5, 0.5]) for _ in range(2)]
    places = np.arange(1, 6)
    errors = [
        TokenErrors(places, np.full(5, 0.1), np.full(5, 2.0)),
        TokenErrors(places, np.array([1.0, 9.0, 2.0, 9.0, 9.0]), np.full(5, 0.5)),
    ]
    found = pruned(examples, errors, [4, 4], [2], sample_keep=1.0, token_keep=0.5)
    assert found.examples[0] == examples[0]
    # Free are the places 1 and 3, both beside the SID; behind 3 comes the answer's first, so its score is higher.
    assert found.examples[1].weights == [0.0, 1.0, 1.0, 0.0, 0.5, 0.5] and found.examples[1].ids == examples[1].ids
    assert found.figures() == {
        "quadrants": {"noise": 0, "misconception": 1, "redundant": 0, "calibration": 1},
        "kept": {"misconception": 1, "calibration": 1},
        "tokens": 5,
        "pruned_tokens": 1,
    }


def test_errors_are_those_of_plain_logits(monkeypatch):
    """Each example on its own, without padding; batches of some size, and of one."""
    model = tiny_model(len(TOKENIZER))
    examples = trace_examples(TRACES[:5], TOKENIZER, SMALL, reasoning=True)
    for numbers in (1, 1 << 26):
        monkeypatch.setattr("stages.sft.q_tuning.LOGITS", numbers)
        for example, error in zip(examples, token_errors(model, examples, 0), strict=True):
            with torch.no_grad():
                logp = torch.log_softmax(model(input_ids=torch.tensor([example.ids])).logits[0], dim=-1)
            places = [place for place, weight in enumerate(example.weights) if weight]
            assert error.places_C.tolist() == places
            assert error.nll_C == pytest.approx([-float(logp[place - 1, example.ids[place]]) for place in places], rel=1e-3)
            entropies = torch.distributions.Categorical(logits=logp).entropy()
            assert error.entropy_C == pytest.approx([float(entropies[place - 1]) for place in places], rel=1e-3)


def test_a_run_trains_on_what_is_kept(project):  # noqa: F811
    run(project, small(steps=4, log_every=2, prune="q_tuning", sample_keep=0.25, token_keep=0.5))
    metrics = read_json(project / "data/sft/metrics.json")
    pruning = metrics["pruning"]
    assert sum(pruning["quadrants"].values()) == TRACES.height and sum(pruning["kept"].values()) == round(0.25 * TRACES.height)
    assert 0 < pruning["pruned_tokens"] < pruning["tokens"]
    assert "pruning" not in read_json(project / "data/sft/metrics.json") or metrics["rows"]["traces"] > 0


@pytest.mark.parametrize("reasoning", [True, False])
def test_no_sid_and_no_token_of_an_answer_is_pruned(reasoning):
    from tests.stages.sft.test_sft import SLATES, PromptParams, make_tables

    traces = make_tables(SLATES, PromptParams(reasoning=reasoning))["data/traces/traces.parquet"][:12]
    examples = trace_examples(traces, TOKENIZER, SMALL, reasoning)
    think_end = TOKENIZER.convert_tokens_to_ids("</think>")
    starts = [answer_start(example, think_end, reasoning) for example in examples]
    for example, start, answer in zip(examples, starts, traces["answer"], strict=True):
        assert TOKENIZER.decode(example.ids[start:]) == ("</think>" if reasoning else "") + answer
    sids = sid_and_layout_ids(TOKENIZER)
    errors = token_errors(tiny_model(len(TOKENIZER)), examples, 0)
    found = pruned(examples, errors, starts, sids, 1.0, 0.01)
    for example, before, start in zip(found.examples, examples, starts, strict=True):
        gone = [place for place in range(len(example.ids)) if before.weights[place] and not example.weights[place]]
        assert all(place < start and example.ids[place] not in sids for place in gone)
    assert (found.pruned > 0) == reasoning
