"""What is computed of a curve or of answers, on cases worked out by hand."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from stages.rl.params import RlParams, WatchSection
from stages.rl.rates import rate
from stages.rl.rollouts import Group, Task
from stages.rl.watch.ceiling import entropy_fit
from stages.rl.watch.probe import PositionProbe
from stages.rl.watch.promotions import moves_of
from stages.rl.watch.steps import FAULTS, HackWatch, require_variance
from stages.rl.watch.validation import best_step, held_out
from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion
from stages.shared.slates.answers import Answer
from stages.shared.slates.layouts.compact import CompactLayout
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.marks import END, THINK_END
from stages.shared.slates.prompt_params import PromptParams
from tests.support.small_project import CATALOG, K, make_slates
from tests.support.tiny_models import tiny_tokenizer

LINE = {"valid": 1.0, "identical": 0.0, "as_shown": 0.0, "adjacent_swap": 0.0, "length": 10.0, "entropy": 1.0}


def test_rates_rise_and_fall_as_asked():
    def rates(**more):
        return [rate(step, RlParams(steps=8, lr=2.0, **more)) for step in range(8)]

    assert rates() == [2.0] * 8, "the default changes nothing"
    assert rates(warmup=0.5) == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0])
    assert rates(schedule="linear") == pytest.approx([2 - step / 4 for step in range(8)])
    assert rates(schedule="cosine", warmup=0.25) == pytest.approx([1.0, 2.0, *(1 + np.cos(np.pi * np.arange(6) / 6))])


def test_the_entropy_curve_is_found_again():
    entropy = np.array([1.2, 0.9, 0.5, 0.2])
    fit = entropy_fit(entropy, 0.7 - 0.2 * np.exp(entropy))
    assert fit == pytest.approx((0.2, 0.7, 0.5, 1.0))
    noisy = 0.7 - 0.2 * np.exp(entropy) + np.array([0.1, -0.1, 0.1, -0.1])
    a, b = np.linalg.lstsq(np.stack([-np.exp(entropy), np.ones(4)], 1), noisy, rcond=None)[0]
    found = entropy_fit(entropy, noisy)
    assert found[:2] == pytest.approx((a, b))
    assert found.explained == pytest.approx(np.corrcoef(np.exp(entropy), noisy)[0, 1] ** 2)
    assert entropy_fit([1.0, 0.5], [0.0, 1.0]) is None and entropy_fit([1.0] * 4, [0.0, 1.0, 2.0, 3.0]) is None


def test_moves_of_the_target_are_counted():
    def group(target, *orders):
        answers = [Answer(order, "" if order else "missing") for order in orders]
        return Group(Task([0], None, target, (0, 1, 2)), [], answers, [0.0] * len(answers))

    moves = moves_of(4, [group(2, (2, 0, 1), (0, 2, 1), None), group(2, (2, 1, 0)), group(0, (1, 2, 0))])
    assert moves == [(4, 0, 2, 1), (4, 2, 0, 2), (4, 2, 1, 1)]
    assert moves_of(1, []) == []


def watching(**limits) -> HackWatch:
    return HackWatch(RlParams(watch=WatchSection(action="stop", patience=2, **limits)))


def test_copies_of_the_order_shown_count_in_successive_steps():
    watch = watching(as_shown=0.5)
    for step, share in ((1, 0.75), (2, 0.25), (3, 0.75)):
        watch.see({"step": float(step), **LINE, "as_shown": share})
    with pytest.raises(StageError, match=r"step 4: 75% of the answers copy the order shown, for 2 steps in a row \(rl.watch.as_shown\)"):
        watch.see({"step": 4.0, **LINE, "as_shown": 0.75})


def test_a_probe_counts_where_it_was_made():
    watch = watching(first_shown=0.5)
    watch.see({"step": 1.0, **LINE, "probe_first_shown": 0.6})
    watch.see({"step": 2.0, **LINE})
    with pytest.raises(StageError, match=r"step 3: 60% .* put first what the prompt shows first, for 2 probes in a row"):
        watch.see({"step": 3.0, **LINE, "probe_first_shown": 0.6})


def test_a_fall_of_the_validation_reward_is_told():
    params = RlParams(steps=8, validate_steps=2, watch=WatchSection(patience=2, validation_fall=0.1))
    watch = HackWatch(params)
    for step, value in enumerate([0.1, None, 0.4, None, 0.25, None, 0.29], start=1):
        watch.see({"step": float(step), **LINE, **({} if value is None else {"validation_reward": value})})
    assert watch.warnings == {"validation_fall": 7}, "below the best by more than 0.1 at steps 5 and 7, and at none between"


def test_the_best_step_is_the_earlier_of_two():
    curve = [{"step": 1.0}, {"step": 2.0, "validation_reward": 0.5}, {"step": 3.0, "validation_reward": 0.5}]
    assert best_step(curve) == 2 and best_step(curve[:1]) is None
    assert best_step([{"step": 0.0, "validation_reward": 0.5}, *curve]) == 0, "where no step is worth more, the start is kept"


def test_users_are_held_out_whole():
    slates = make_slates()
    params = RlParams(steps=2, validate_steps=1, validate_slates=10)
    learnt, asked = held_out(slates, params)
    assert len(asked) == 10 and not {slate.user for slate in asked} & {slate.user for slate in learnt}
    assert len({slate.user for slate in slates} - {slate.user for slate in learnt}) == 4, "three slates a user"
    assert held_out(slates, RlParams()) == (slates, [])
    with pytest.raises(StageError, match=r"rl.validate_slates: 180 of the 180 training slates leaves no user"):
        held_out(slates, params.model_copy(update={"validate_slates": 180}))


def test_what_contradicts_validation_is_refused():
    with pytest.raises(ValueError, match="validate_steps: 4 must divide steps: 6"):
        RlParams(steps=6, validate_steps=4)
    with pytest.raises(ValueError, match="reward: random is a control"):
        RlParams(steps=6, validate_steps=3, reward="random")
    with pytest.raises(ValueError, match=r"watch.validation_fall: nothing is validated"):
        RlParams(watch=WatchSection(validation_fall=0.1))


NOTHING = {"kept": 0.0, "valid": 0.0, "identical": 0.0, "length": 0.0, "contradicts": 0.0, **dict.fromkeys(FAULTS, 0.0)}


def test_a_run_without_a_token_names_the_engine():
    with pytest.raises(StageError, match="no answer had a token: the engine failed"):
        require_variance([NOTHING], RlParams())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("contradicts", "100% of the answers were invalid, most of them against their own relevances: "),
        ("malformed", "most of them malformed: "),
    ],
)
def test_a_run_that_learnt_nothing_names_the_fault_of_its_answers(fault, words):
    with pytest.raises(StageError, match=words):
        require_variance([NOTHING | {"length": 30.0, fault: 1.0}], RlParams())


class Written:
    """An engine whose answers are an order of places, chosen by a function of the ranks as shown."""

    def __init__(self, tokenizer, order_of, tasks):
        self.marks = [tokenizer.encode(mark, add_special_tokens=False) for mark in (THINK_END, END)]
        self.order_of, self.shown = order_of, {tuple(task.prompt): task.shown for task in tasks}

    def generate(self, prompts, sampling, constraints=None):
        assert sampling.temperature == 0
        begin, end = self.marks
        rows = zip(prompts, constraints, strict=True)
        said = [[token for place in self.order_of(self.shown[tuple(p)]) for token in c.names[place]] for p, c in rows]
        return [[Completion([*begin, *names, *end], [])] for names in said]


def test_the_probe_tells_a_policy_of_places_from_one_of_items():
    tokenizer = tiny_tokenizer()
    encoded = EncodedLayout(CompactLayout(CATALOG, PromptParams()), tokenizer)
    params = RlParams(watch=WatchSection(probe_steps=3, probe_slates=5, probe_orders=K))

    def measured(order_of, step=1):
        probe = PositionProbe(make_slates(), encoded, params)
        return probe, probe.measure(SimpleNamespace(sampling=nullcontext), Written(tokenizer, order_of, probe.tasks), step)

    probe, copying = measured(lambda shown: range(K))
    assert copying == {"probe_valid": 1.0, "probe_first_shown": 1.0, "probe_place": 0.0, "probe_first_changed": 1.0}
    assert probe.places == [(1, [20, 0, 0, 0])]
    probe, blind = measured(lambda shown: sorted(range(K), key=lambda place: shown[place]))
    assert blind == pytest.approx({"probe_valid": 1.0, "probe_first_shown": 1 / K, "probe_place": 0.5, "probe_first_changed": 0.0})
    assert probe.places == [(1, [5] * K)], "the rotations put every candidate at every place once"
    last = measured(lambda shown: [3, 0, 1, 2], step=4)[1]
    assert last["probe_first_shown"] == 0 and last["probe_place"] == 1.0
    assert measured(lambda shown: range(K), step=3)[1] == {}, "steps 1, 4, 7, ..."
    invalid = measured(lambda shown: [0, 0, 1, 2])[1]
    assert invalid == {"probe_valid": 0.0, "probe_first_shown": 0.0, "probe_place": 0.5, "probe_first_changed": 0.0}
