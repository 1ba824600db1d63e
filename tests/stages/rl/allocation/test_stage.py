"""Allocation in whole runs: what a step learns from, ReLIFT's steps, and going on where a killed run was."""

import csv

import polars as pl
import pytest
import torch
from pydantic import ValidationError

from stages.rl.allocation.knapsack import SuccessRates
from stages.rl.allocation.relift import Demonstration, FailedSlates, demonstrations, sft_step
from stages.rl.params import RlParams
from stages.rl.policy import open_policy
from stages.rl.rl import rl
from stages.rl.rollouts import Group, Rollouts, Task, draw
from stages.rl.update import learnt_from, update
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from stages.shared.generation.base import Completion, Sampling
from stages.shared.lm.models import load_tokenizer
from stages.shared.slates.answers import Answer
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.traces import read_traces
from tests.stages.rl.test_policy import gradient, rollouts
from tests.stages.rl.test_stage import contents, killed_after, project  # noqa: F401 (a fixture)
from tests.stages.shared.slates.test_constraint import constraint
from tests.support.small_project import CATALOG
from tests.support.tiny_models import random_prompts, tiny_model

# Under the constraint every answer of a model that knows nothing is a permutation, so its rewards vary.
SMALL = {"threads": 1, "steps": 3, "prompts": 3, "group": 4, "micro_prompts": 2, "max_tokens": 96, "max_refills": 1, "batch_size": 16}
SMALL |= {"constrained": True, "consistent": False, "temperature": 2.0, "lr": 1e-3}
WAYS = {
    "d3s": {"d3s_share": 0.5},
    "d3s_tokens": {"d3s_tokens": 0.25, "d3s_relax": 2},
    "d3s_across": {"d3s_share": 0.5, "d3s_across": True, "d3s_relax": 2},
    "prof": {"prof_share": 0.75},
    "knapsack": {"knapsack_most": 8},
    "dump": {"dump": True},
    "relift": {"relift_batch": 2},
}
EVERYTHING = (
    {"d3s_share": 0.75, "d3s_tokens": 0.5, "d3s_across": True, "prof_share": 0.75, "knapsack_most": 8} | WAYS["dump"] | WAYS["relift"]
)


def run(folder, allocation, **more) -> tuple[dict[str, bytes], list[dict[str, float]]]:
    with stage_outputs("rl") as outputs:
        rl(RlParams(**{**SMALL, **more}, allocation=allocation), outputs)
    with (folder / "data/rl/steps.csv").open() as file:
        rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    return contents(folder / "data/rl"), rows


@pytest.mark.parametrize("way", WAYS)
def test_each_way_by_itself(project, way):  # noqa: F811
    rows = run(project, WAYS[way], **({"group": 2, "steps": 5} if way == "relift" else {}))[1]
    if way == "d3s":
        assert [row["learnt"] for row in rows] == [row["kept"] * 2 for row in rows]
    elif way == "d3s_tokens":
        # As long on average as all that was sampled is what is learnt from, or nearly.
        tokens = [row["kept"] * 4 * row["length"] for row in rows]
        assert [round(row["learnt_tokens"] / count, 1) for row, count in zip(rows, tokens, strict=True)] == pytest.approx(
            [0.25, 0.625, 1.0], abs=0.1
        )
    elif way == "d3s_across":
        assert rows[0]["learnt"] == rows[0]["kept"] * 2 and rows[2]["learnt"] == rows[2]["kept"] * 4, "relaxed by then"
    elif way == "prof":
        assert all(row["prof_dropped"] == 0.25 and row["learnt"] == row["kept"] * 3 for row in rows)
    elif way == "knapsack":
        assert max(row["budget_most"] for row in rows) > 4
    elif way == "dump":
        assert all(1 <= row["target_place"] <= 4 for row in rows)
    else:
        assert {row["sft_traces"] for row in rows} == {0.0, 2.0} and max(row["sft_loss"] for row in rows) > 1


def test_with_everything_on_a_killed_run_goes_on_to_the_same_bytes(project, monkeypatch):  # noqa: F811
    options = {"steps": 5, "keep_surplus": True}
    whole, rows = run(project, EVERYTHING, **options)
    assert max(row["sft_traces"] for row in rows) == 2 and max(row["budget_most"] for row in rows) > 4
    for stop in (1, 3):
        with killed_after(stop, monkeypatch):
            run(project, EVERYTHING, **options, save_steps=1)
    assert run(project, EVERYTHING, **options, save_steps=1)[0] == whole


def test_groups_of_different_sizes_are_learnt_from_alike_in_every_form():
    """And as two runs of groups of one size each would be."""
    changes = {}
    for form, micro in (("cache", 3), ("cache", 1), ("tree", 3), ("none", 3)):
        model = tiny_model(64)
        batch = rollouts(model, 3)
        ragged = [batch.kept[0].some([0, 2]), batch.kept[1], batch.kept[2].some([1, 2, 3])]
        changes[form, micro] = gradient(model, batch.__class__(ragged, ragged, 0), shared_prefix=form, micro_prompts=micro)
    first = changes["cache", 3]
    assert first.norm() > 1e-3 and all(torch.allclose(first, other, atol=1e-5) for other in changes.values())


def test_d3s_keeps_the_advantages_of_whole_groups():
    def group(*rewards) -> Group:
        logged = [Completion([number], [-1.0]) for number in range(len(rewards))]
        return Group(
            Task([0], constraint(3), 1, (0, 1, 2)), logged, answers((0, 1, 2), (1, 0, 2), (0, 2, 1))[: len(rewards)], list(rewards)
        )

    groups, advantages = [group(0.0, 1.0, 0.5), group(0.2, 0.0)], torch.tensor([-1.0, 1.5, 0.1, 0.7, -0.7])
    params = RlParams(group=4, allocation={"d3s_share": 0.6})
    kept, gains = learnt_from(groups, advantages, params, 0)
    assert [one.rewards for one in kept] == [[0.0, 1.0], [0.2]] and gains.tolist() == pytest.approx([-1.0, 1.5, 0.7]), "0.6 of 2 is 1"
    assert [one.token_ids for one in kept[0].completions] == [[0], [1]]
    across = RlParams(group=4, allocation={"d3s_share": 0.4, "d3s_across": True, "d3s_relax": 2})
    kept, gains = learnt_from(groups, advantages, across, 0)
    assert [one.rewards for one in kept] == [[0.0, 1.0]] and gains.tolist() == [-1.0, 1.5], "a group without any is gone"
    assert learnt_from(groups, advantages, across, 2) == (groups, advantages)


@pytest.mark.parametrize(("form", "micro"), [("cache", 3), ("tree", 3), ("none", 3), ("tree", 1)])
def test_the_loss_is_that_of_the_tokens_kept(form, micro):
    """Against a loop over answers, each by itself: -A pi / pi_old of the tokens of the greatest |A| H, over their number."""
    model = tiny_model(64)
    batch = rollouts(model, 3)
    found = gradient(model, batch, shared_prefix=form, micro_prompts=micro, allocation={"d3s_tokens": 0.3})
    reference = tiny_model(64)
    weighed = []  # by pass: (|A| H, order in the step, loss) of each token
    for number, group in enumerate(batch.kept):
        rewards = torch.tensor(group.rewards)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        for gain, completion in zip(advantages, group.completions, strict=True):
            prompt, response = group.task.prompt, completion.token_ids
            logps = torch.log_softmax(reference(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1], -1)
            entropy = -(logps.exp() * logps).sum(-1).detach()
            drawn = logps.gather(-1, torch.tensor(response)[:, None])[:, 0]
            losses = -gain * torch.exp(drawn - drawn.detach())
            rows = zip((abs(gain) * entropy).tolist(), losses, strict=True)
            weighed += [(number if micro == 1 else 0, weight, loss) for weight, loss in rows]
    kept = []
    for number in {row[0] for row in weighed}:
        own = sorted((row for row in weighed if row[0] == number), key=lambda row: -row[1])
        kept += [row[2] for row in own[: -(-3 * len(own) // 10)]]
    (sum(kept) / len(kept)).backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    expected = -torch.cat([parameter.grad.flatten() for parameter in reference.parameters()])
    assert found.norm() > 1e-3 and torch.allclose(found, expected, atol=1e-5)


def test_tokens_are_chosen_before_the_first_update_and_stay():
    model = tiny_model(64)
    params = RlParams(threads=1, prompts=2, group=4, micro_prompts=1, updates=3, lr=1e-2, allocation={"d3s_tokens": 0.2})
    batch = rollouts(model, 2)
    measured = update(open_policy(model, params), batch, params, 0)
    tokens = [sum(len(one.token_ids) for one in group.completions) for group in batch.kept]
    assert measured["learnt_tokens"] == sum(-(-count // 5) for count in tokens)
    nothing = update(open_policy(model, params), Rollouts([], [], 0), params, 0)
    assert nothing["learnt_tokens"] == 0, "the column is there in every process"


class Counting:
    """An engine that answers with the number of the prompt, and notes how it was asked."""

    def __init__(self):
        self.asked = []

    def generate(self, prompts, sampling, constraints=None, places=None):
        self.asked.append((places, sampling.samples))
        return [[Completion([prompt[0]], [-1.0])] * sampling.samples for prompt in prompts]


def test_knapsack_draws_as_many_answers_in_all_each_for_its_slate():
    rates = SuccessRates()
    for slate, right in ((0, 8), (1, 4), (2, 1)):
        rates.see(slate, slate, right, 8)
    engine, tasks = Counting(), [Task([slate], constraint(3), slate, (0, 1, 2), slate) for slate in range(3)]
    params = RlParams(group=4, allocation={"knapsack_most": 8})
    drawn = draw(tasks, engine, Sampling(16, 1.0, samples=4), params, rates)
    assert sum(map(len, drawn)) == 12 and len(drawn[0]) == 2 < len(drawn[2])
    assert [row[0].token_ids for row in drawn] == [[0], [1], [2]]
    assert sorted(place for places, _ in engine.asked for place in places) == [0, 1, 2]
    assert draw(tasks, engine, Sampling(16, 1.0, samples=4), params, None) == [[Completion([slate], [-1.0])] * 4 for slate in range(3)]


def answers(*orders) -> list[Answer]:
    return [Answer(order, "" if order else "missing") for order in orders]


def test_slates_wait_until_a_batch_of_them_failed():
    traces = {slate: Demonstration([1, slate], [2]) for slate in (1, 2, 4)}
    failed = FailedSlates(traces)
    lost, raised = answers((0, 1, 2), None, (0, 2, 1)), answers((0, 1, 2), None, (2, 0, 1))

    def group(slate, target, own) -> Group:
        return Group(Task([0], constraint(3), target, (0, 1, 2), slate), [], own, [])

    failed.see([group(1, 1, lost), group(2, 2, raised), group(3, 1, lost), group(1, 1, lost)])
    assert failed.waiting == [1] and failed.take(2) == [], "2 has a right answer, 3 no trace"
    failed.see([group(4, 1, lost)])
    failed.see([group(2, 1, lost)])
    assert failed.take(2) == [traces[1], traces[4]] and failed.waiting == [2]


def test_the_trace_of_a_slate_is_what_sft_would_learn(project):  # noqa: F811
    tokenizer = load_tokenizer(project / "data/sft/model")
    encoded = EncodedLayout(layout_of(CATALOG, PromptParams()), tokenizer)
    tasks = [Task([0], constraint(4), 1, (0, 1, 2, 3), slate) for slate in (5, 3)]
    table = read_traces()
    found = demonstrations(pl.concat([table, table.with_columns(answer=pl.lit("later"))]), encoded, tasks)
    assert sorted(found) == [3, 5]
    row = table.row(by_predicate=pl.col("slate") == 5, named=True)
    assert tokenizer.decode(found[5].prompt) == row["prompt"]
    assert tokenizer.decode(found[5].response) == row["trace"] + THINK_END + row["answer"]
    with pytest.raises(StageError, match="no trace of any training slate"):
        demonstrations(table, encoded, [Task([0], constraint(4), 1, (0, 1, 2, 3), 999)])
    direct = EncodedLayout(layout_of(CATALOG, PromptParams(reasoning=False)), tokenizer)
    with pytest.raises(StageError, match="written in another layout"):
        demonstrations(table, direct, tasks)


@pytest.mark.parametrize("micro", [1, 3])
def test_an_sft_step_is_a_step_on_the_mean_loss_of_the_traces_tokens(micro):
    taken = [Demonstration(*pair) for pair in zip(random_prompts(3, 64, 4, 8, 1), random_prompts(3, 64, 2, 9, 2), strict=True)]
    model, reference = tiny_model(64), tiny_model(64)
    policy = open_policy(model, RlParams(threads=1, prompts=3, micro_prompts=micro, lr=1.0))
    policy.optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    measured = sft_step(policy, taken, policy.params, 0)
    total, tokens = torch.zeros(()), 0
    for prompt, response in taken:
        logits = reference(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(response), reduction="sum")
        tokens += len(response)
    (total / tokens).backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    assert measured == {"sft_traces": 3.0, "sft_loss": pytest.approx(total.item() / tokens, rel=1e-5)}
    fresh = tiny_model(64)
    for before, after, expected in zip(fresh.parameters(), model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(before - after, expected.grad, atol=1e-5)


def test_a_process_without_traces_takes_no_step():
    policy = open_policy(tiny_model(64), RlParams(threads=1))
    assert sft_step(policy, [], policy.params, 0) == {"sft_traces": 0.0, "sft_loss": 0.0} and policy.microbatches == 0


def test_a_layout_without_quotes_is_refused_before_anything_is_loaded(project):  # noqa: F811
    (project / "params.yaml").write_text("prompt: {reasoning: false}\n")
    with pytest.raises(StageError, match=r"rl\.allocation\.prof_share: this prompt's layout has no quoted facts.*set it to 1\.0"):
        run(project, {"prof_share": 0.75})
    with pytest.raises(ValidationError, match="relift_batch"):
        run(project, {"relift_batch": 2}, reward="random")
