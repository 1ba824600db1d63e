"""Which weights a step's rollouts are of, and a whole run with an engine process: one step ahead, killed, and resumed."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

import stages.rl.rl as stage
from stages.rl.engines.beside import EngineBeside
from stages.rl.engines.clock import StepClock
from stages.rl.engines.steps import StepRollouts
from stages.rl.params import RlParams
from stages.rl.rl import rl
from stages.rl.rollouts import Rollouts
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from tests.stages.rl.test_stage import SMALL, contents, project  # noqa: F401, a fixture

ROOT = Path(__file__).parents[4]


class Recorded(EngineBeside):
    """Instead of a process: which version of the policy it has."""

    def __init__(self, params: RlParams) -> None:
        self.policy_version, self.version, self.events = 0, -1, list[str]()
        self.params, self.process = params, self

    def take_weights(self) -> None:
        self.version = self.policy_version

    def send(self, request: dict[str, bool]) -> None:
        self.events += request

    def receive(self) -> None:
        pass


@pytest.mark.parametrize(("ahead", "versions"), [(False, [0, 1, 2, 3]), (True, [0, 0, 1, 2])])
def test_with_ahead_the_weights_are_one_step_old_and_never_older(ahead, versions):
    params = RlParams.model_validate({"steps": 4, "rollout": {"ahead": ahead, "engine": "vllm"}})
    engine, drawn_with = Recorded(params), []

    def draw(step: int) -> Rollouts:
        drawn_with.append(engine.version)
        return Rollouts([], [], step)

    steps = StepRollouts(engine, params, StepClock(), draw)
    for step in range(4):
        assert steps.take(step).refills == step
        steps.drawn_ahead()
        engine.policy_version += 1
    assert drawn_with == versions and steps.drawn_ahead() is None
    assert engine.events == ([] if ahead else ["sleep"] * 4), "an engine that draws while the policy learns does not sleep"


def run(project: Path, **more) -> dict[str, bytes]:  # noqa: F811
    values = {**SMALL.model_dump(), "steps": 4, "lr": 1e-3, "rollout": {"ahead": True}, "allocation": {"dump": True}, **more}
    with stage_outputs("rl") as outputs:
        rl(RlParams.model_validate(values), outputs)
    return contents(project / "data/rl")


@pytest.mark.slow
def test_a_run_one_step_ahead_survives_the_death_of_its_engine(project, monkeypatch):  # noqa: F811
    """Killed in the middle, it says so, and a second run goes on to the bytes of one that was let alone."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    whole = run(project)
    gaps = [float(row.split(",")[whole["steps.csv"].decode().split("\n")[0].split(",").index("logprob_gap")]) for row in rows(whole)]
    assert gaps[0] < 1e-4 and min(gaps[1:]) > 1e-3, "from the second step on the sampler's weights are older than the trainer's"

    engines, real = list[EngineBeside](), stage.open_rollout_engine
    updates, learn = list[int](), stage.update

    @contextmanager
    def watched(*arguments):
        with real(*arguments) as engine:
            engines.append(engine)
            yield engine

    def killing(*arguments, **more):
        updates.append(1)
        if len(updates) == 3:
            os.kill(engines[0].process.pid, signal.SIGKILL)
        return learn(*arguments, **more)

    monkeypatch.setattr(stage, "open_rollout_engine", watched)
    monkeypatch.setattr(stage, "update", killing)
    with pytest.raises(StageError, match=r"was ended by signal 9 \(SIGKILL\); .*the last checkpoint \(every 1 steps\) is intact"):
        run(project, save_steps=1)
    assert contents(project / "data/rl") == whole, "outputs of the run before"
    monkeypatch.setattr(stage, "update", learn)
    assert run(project, save_steps=1) == whole
    assert not (project / ".gr2/resume/rl").exists()


def rows(whole: dict[str, bytes]) -> list[str]:
    return whole["steps.csv"].decode().splitlines()[1:]


def test_times_are_logged_on_request(project):  # noqa: F811
    run(project, steps=2, rollout={"log_times": True})
    times = read_json(project / "data/rl/metrics.json")["last_fifth"]
    assert times["share_generating"] > 0 and times["share_training"] > 0
    assert times["share_generating"] + times["share_training"] + times["share_idle"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "disco"}, "no importance ratio, and rollout.ahead"),
        ({"keep_surplus": True}, "which rollout.ahead cannot while they learn"),
    ],
)
def test_what_cannot_be_one_step_behind_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        RlParams.model_validate({"rollout": {"ahead": True}, **values})


def test_an_answer_longer_than_the_model_is_refused_before_an_engine_starts(project):  # noqa: F811
    with pytest.raises(StageError, match=r"a prompt of \d+ tokens and rl.max_tokens 500 exceed the 512 positions"):
        run(project, max_tokens=500)
