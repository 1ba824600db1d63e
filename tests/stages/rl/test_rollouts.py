"""Dynamic sampling on an engine whose answers are written beforehand."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import pytest
import torch

from stages.rl.params import RlParams
from stages.rl.rewards.group import Rewarder
from stages.rl.rollouts import (
    CONTRADICTS,
    Group,
    Rollouts,
    Task,
    contradicts,
    initial_ranks,
    relevances_along,
    sample_step,
    score,
    teaches,
)
from stages.rl.stream import TaskStream
from stages.rl.watch.steps import behaviour, step_metrics
from stages.shared.generation.base import Completion, Sampling
from stages.shared.slates.answers import Answer
from stages.shared.slates.constraint import LayoutTokenIds
from stages.shared.slates.layouts.marks import END, THINK_END
from tests.stages.shared.slates.test_constraint import TOKENIZER, constraint, encoded

CONSTRAINT = constraint(3, "sids")
NAMES = CONSTRAINT.names
WANTED, GROUP = 3, 4
INCOMING, RAISED, INVALID = (0, 1, 2), (2, 0, 1), (0, 0, 1)


def written(order: Sequence[int]) -> Completion:
    ids = TOKENIZER.encode(THINK_END, add_special_tokens=False) + [token for rank in order for token in NAMES[rank]]
    ids += TOKENIZER.encode(END, add_special_tokens=False)
    return Completion(ids, [-0.5] * len(ids))


class Script:
    """An engine that answers the n-th prompt it ever sees with the n-th script, a list of GROUP orders."""

    def __init__(self, scripts: list[list[tuple[int, ...]]]):
        self.scripts, self.seeds, self.prompts = iter(scripts), [], []

    def generate(self, prompts, sampling, constraints=None):
        self.seeds.append(sampling.seed)
        self.prompts += [prompt[0] for prompt in prompts]
        return [[written(order) for order in next(self.scripts)] for _ in prompts]


PARAMS = RlParams(prompts=WANTED, group=GROUP, alpha=0.2, invalid_reward=-1.0, consistent=False)


def step(scripts, refills=2, surplus=(), **more):
    engine = Script(scripts)
    tasks = iter([Task([number], CONSTRAINT, 2, (0, 1, 2)) for number in range(100)])
    params = RlParams(**{**PARAMS.model_dump(exclude={"watch"}), "max_refills": refills, **more})
    sampling = Sampling(max_tokens=64, temperature=1.0, samples=GROUP, seed=5)
    return engine, sample_step(tasks, engine, encoded("sids").reader, Rewarder(params), sampling, params, surplus)


FLAT, USEFUL, ALL_INVALID = [INCOMING] * 4, [INCOMING, RAISED, INVALID, INCOMING], [INVALID] * 4


def test_groups_without_variance_are_dropped_and_the_step_refilled():
    engine, rollouts = step([FLAT, USEFUL, ALL_INVALID, USEFUL, FLAT, USEFUL])
    assert [group.task.prompt for group in rollouts.kept] == [[1], [3], [5]]
    assert engine.prompts == [0, 1, 2, 3, 4, 5] and rollouts.refills == 1 and len(rollouts.sampled) == 6
    assert rollouts.kept[0].rewards == pytest.approx([0.0, 2 / 3 + 0.2, -1.0, 0.0])
    assert [answer.fault for answer in rollouts.kept[0].answers] == ["", "", "duplicate", ""]


def test_a_full_first_round_takes_no_refill_and_a_surplus_is_cut():
    _, rollouts = step([USEFUL] * 9)
    assert rollouts.refills == 0 and len(rollouts.kept) == len(rollouts.sampled) == WANTED
    _, rollouts = step([USEFUL, USEFUL, FLAT, USEFUL, USEFUL, USEFUL])
    assert [group.task.prompt for group in rollouts.kept] == [[0], [1], [3]] and len(rollouts.sampled) == 6


@pytest.mark.parametrize("refills", [0, 1, 3])
def test_a_step_that_never_fills_ends_at_the_cap(refills):
    engine, rollouts = step([FLAT] * 100, refills=refills)
    assert rollouts.kept == [] and rollouts.refills == refills and len(rollouts.sampled) == WANTED * (refills + 1)
    assert len(set(engine.seeds)) == refills + 1, "each round draws anew"


def test_the_curve_counts_every_group_sampled_not_the_kept_ones():
    _, rollouts = step([FLAT, USEFUL, ALL_INVALID], refills=0)
    row = step_metrics(rollouts, PARAMS)
    assert row["kept"] == 1 and row["refills"] == 0
    assert row["valid"] == pytest.approx(7 / 12) and row["identical"] == pytest.approx(6 / 12)
    assert row["reward"] == pytest.approx((0 + (2 / 3 + 0.2 - 1) - 4) / 12)
    assert row["rank_reward"] == pytest.approx((2 / 3) / 7) and row["entropy"] == pytest.approx(0.5)


TASKS = [Task([number], CONSTRAINT, 0, (0, 1, 2)) for number in range(7)]


def numbers(count: int, seed: int = 1) -> list[int]:
    return [task.prompt[0] for task in islice(TaskStream(TASKS, seed), count)]


def test_each_epoch_holds_each_task_once_in_an_order_of_its_own():
    drawn = numbers(21)
    epochs = [drawn[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs) and epochs[0] != epochs[1] != epochs[2]
    assert numbers(21) == drawn != numbers(21, seed=2)


def test_ranks_share_an_epoch_between_them(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts = []
    for rank, size in ((0, 4), (1, 3)):
        monkeypatch.setenv("RANK", str(rank))
        parts += numbers(size)
    assert sorted(parts) == list(range(7))


def test_fewer_tasks_than_ranks_leave_no_rank_waiting_for_ever(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "9")
    monkeypatch.setenv("RANK", "8")
    assert numbers(1)[0] in range(7)


def test_rewards_are_summed_in_the_order_of_the_answers():
    _, rollouts = step([USEFUL] * 3)
    assert torch.tensor([group.rewards for group in rollouts.kept]).shape == (WANTED, GROUP)


def test_an_answer_to_a_shuffled_slate_counts_in_initial_ranks():
    """Shown as C A B: the answer that names the places 1, 0, 2 means A C B."""
    task = Task([0], CONSTRAINT, 2, (2, 0, 1))
    assert initial_ranks(Answer((1, 0, 2), ""), task) == Answer((0, 2, 1), "")
    assert initial_ranks(Answer(None, "missing"), task) == Answer(None, "missing")


def test_an_answer_against_its_own_relevances_contradicts():
    levels = [100, 101, 102, 103]
    layout = LayoutTokenIds(9, 10, levels, [])
    for relevances, order, against in (
        ((3, 1, 2), (0, 2, 1), False),
        ((3, 1, 2), (0, 1, 2), True),
        ((2, 2, 1), (1, 0, 2), False),  # equals in either order
        ((0, 0, 3), (0, 1, 2), True),
        ((3, 1), (1, 0, 2), False),  # one relevance is missing: nothing to hold it against
    ):
        completion = [7, *(levels[level] for level in relevances), 9, *order]
        assert contradicts(Answer(order, ""), completion, layout) is against
    assert not contradicts(Answer(None, "missing"), [100, 101, 102], layout)


def test_a_relevance_is_of_the_candidate_whose_letter_stands_before_it():
    """A trace that judges B before A: an answer is held against what it said of each, not against its turn."""
    layout = LayoutTokenIds(9, 10, [100, 101, 102, 103], [50, 51, 52])
    slipped = [51, 103, 50, 101, 52, 102, 9]
    assert not contradicts(Answer((1, 2, 0), ""), slipped, layout)
    assert contradicts(Answer((0, 2, 1), ""), slipped, layout)
    assert not contradicts(Answer((0, 2, 1), ""), [51, 103, 51, 101, 52, 102, 9], layout), "B twice, A never"
    assert relevances_along([50, 103, 9, 51, 100], layout) == [(1, 0, 3)], "of the trace alone"


def test_contradictions_are_penalised_only_when_asked():
    layout = CONSTRAINT.layout
    thought = [token for place, level in enumerate((3, 1, 2)) for token in (layout.letters[place], layout.relevances[level])]
    completions = [[Completion([*thought, *written(order).token_ids], []) for order in ((0, 2, 1), (2, 0, 1))]]
    reward, task = Rewarder(PARAMS), Task([0], CONSTRAINT, 2, (0, 1, 2))
    [group] = score([task], completions, encoded("sids").reader, reward, consistent=True)
    assert group.rewards == pytest.approx([1 / 3 + 0.2, -1.0]) and group.answers[1] == CONTRADICTS
    [group] = score([task], completions, encoded("sids").reader, reward)
    assert group.rewards == pytest.approx([1 / 3 + 0.2, 2 / 3 + 0.2])


def test_a_saved_stream_goes_on_where_it_was():
    stream = TaskStream(TASKS, 1)
    first = [next(stream).prompt[0] for _ in range(9)]
    again = TaskStream(TASKS, 1)
    again.skip(5)
    assert [next(again).prompt[0] for _ in range(4)] == first[5:] and again.drawn == 9


def test_surplus_groups_come_first_in_the_next_step():
    _, rollouts = step([USEFUL, FLAT, USEFUL, USEFUL, USEFUL, FLAT], keep_surplus=True)
    assert [group.task.prompt for group in rollouts.kept] == [[0], [2], [3]]
    assert [group.task.prompt for group in rollouts.surplus] == [[4]]
    engine, following = step([FLAT, USEFUL, FLAT, USEFUL, USEFUL], surplus=rollouts.surplus, keep_surplus=True)
    assert following.kept[0] is rollouts.surplus[0] and [group.task.prompt for group in following.kept[1:]] == [[1], [3]]
    assert engine.prompts == [0, 1, 2, 3, 4] and len(following.sampled) == 5, "the first round fills what is missing"
    _, cut = step([USEFUL, FLAT, USEFUL, USEFUL, USEFUL, FLAT])
    assert cut.surplus == []


def test_every_step_samples_something_even_when_its_surplus_is_enough():
    _, one = step([USEFUL] * WANTED)
    surplus = one.kept
    engine, rollouts = step([USEFUL, FLAT], surplus=surplus, keep_surplus=True)
    assert rollouts.kept == surplus and engine.prompts == [0] and len(rollouts.surplus) == 1


def test_slates_of_one_prompt_are_groups_of_their_own():
    """Two slates with the same words and other targets: a mean over both would reward what is wrong for each."""
    tasks = [Task([7], CONSTRAINT, target, (0, 1, 2)) for target in (2, 1)]
    completions = [[written(RAISED), written(INCOMING)]] * 2
    groups = score(tasks, completions, encoded("sids").reader, Rewarder(PARAMS))
    assert groups[0].rewards == pytest.approx([2 / 3 + 0.2, 0]) and groups[1].rewards == pytest.approx([-1 / 3, 0])


def test_under_gdpo_parts_teach_though_their_sum_is_tied():
    group = Group(Task([0], CONSTRAINT, 0, (0,)), [], [], [1.0, 1.0], {"rank": [1.0, 0.0], "format": [0.0, 1.0]})
    assert teaches(group, RlParams(reward="gdpo")) and not teaches(group, RlParams(reward="sum"))


def test_the_curve_tells_copies_swaps_and_faults_apart():
    _, rollouts = step([[INCOMING, (1, 0, 2), RAISED, INVALID]], refills=0, prompts=1)
    row = behaviour(rollouts)
    assert row["adjacent_swap"] == row["as_shown"] == row["duplicate"] == 0.25 and row["missing"] == row["unfinished"] == 0
    assert row["promotion"] == pytest.approx((0 + 0 + 2) / 3)
    assert row["grounded"] == 0, "their traces are empty"


def test_the_curve_tells_how_much_of_the_evidence_is_quoted_right():
    constraint = replace(CONSTRAINT, quotes=[[90, 91], [92, 93]])
    end = constraint.layout.think_end
    completions = [Completion(ids, [0.0] * len(ids)) for ids in ([90, 91, 92, 93, end], [90, 91, 92, 99, end], [90, 91, 92, 93])]
    group = Group(Task([0], constraint, 0, (0, 1)), completions, [Answer(None, "missing")] * 3, [0.0] * 3)
    assert behaviour(Rollouts([], [group], 0))["grounded"] == pytest.approx((1 + 0.5 + 0) / 3), "nothing in a trace without an end"


def test_a_process_that_has_enough_goes_on_while_another_refills(monkeypatch):
    others = iter([1.0, 1.0, 0.0])  # the other process is short for two rounds
    monkeypatch.setattr("stages.rl.rollouts.all_sum", lambda value: value + next(others))
    engine, rollouts = step([USEFUL] * 9, refills=4, keep_surplus=True)
    assert rollouts.refills == 2 and len(engine.prompts) == 9
    assert [group.task.prompt for group in rollouts.surplus] == [[3], [4], [5]], "no more than a step needs"
