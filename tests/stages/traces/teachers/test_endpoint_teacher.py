"""The stage with a teacher behind an endpoint that answers in text: faults, costs, what is kept, and a run that is resumed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.slates.layouts.marks import ASSISTANT, END, THINK, THINK_END, USER
from stages.traces.out_of_time import score_out_of_time
from stages.traces.params import ScorerParams, TracesParams
from stages.traces.teachers.language_model import INSTRUCTION
from stages.traces.teachers.teacher import StatisticalTeacher
from stages.traces.traces import traces
from tests.stages.traces.teachers.test_answer_faults import GERMAN
from tests.support.openai_stub import Canned, Stub, openai_stub, reply
from tests.support.traces_data import LAYOUT, make_slates, write_project

SCORER = {"rounds": 5, "min_leaf": 5, "members": 1}
SLATES = make_slates(per_user=2)
SCORED = score_out_of_time(SLATES, 2, LAYOUT, 7, 1, ScorerParams.model_validate(SCORER))
CHANGES: dict[str, Any] = {"time_folds": 2, "attempts": 1, "keep": 1, "shuffle": False, "mode": "targeted", "teacher": "language_model"}
SLOW_S = 20.0  # so much that a good answer on a busy machine is no time-out


def as_asked(prompt: str) -> str:
    return prompt.removeprefix(USER).removesuffix(ASSISTANT + THINK)


@dataclass
class Teacher:
    """Answers each slate as the layout asks, with the target first. canned: other answers, by place; good: answers until it fails."""

    canned: dict[int, Canned] = field(default_factory=dict)
    good: int = 9999

    def __post_init__(self) -> None:
        self.place_of = {as_asked(LAYOUT.prompt(scored.slate)): place for place, scored in enumerate(SCORED)}
        self.proposals = StatisticalTeacher(LAYOUT, 0.5, 7, targeted=True).propose(SCORED, 0)
        self.asked: list[int] = []

    def __call__(self, body: dict[str, Any]) -> Canned:
        place = self.place_of[body["messages"][1]["content"]]
        self.asked.append(place)
        if len(self.asked) > self.good:
            return Canned({}, 500)
        proposal, slate = self.proposals[place], SCORED[place].slate
        assert proposal.order is not None
        text = f"{proposal.trace}{THINK_END}{LAYOUT.answer(slate, proposal.order).removesuffix(END)}"
        return self.canned.get(place, Canned(reply(text)))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEACHER_API_KEY", "sk-planted")
    write_project(tmp_path, SLATES)
    return tmp_path


def run(project: Path, stub: Stub, **more: object) -> dict[str, bytes]:
    endpoint = {
        "base_url": stub.base_url,
        "model": "m",
        "api": "chat",
        "key_variable": "TEACHER_API_KEY",
        "concurrency": 1,  # which requests come first decides what is answered before the server stops
        "retries": 0,
        "timeout_s": SLOW_S - 3,
        "output_price": 2.0,
    }
    model = {"engine": {"kind": "endpoint", "endpoint": endpoint}, **more}
    params = TracesParams.model_validate({"threads": 1, "scorer": SCORER, **CHANGES, "language_model": model})
    with stage_outputs("traces") as outputs:
        traces(params, outputs)
    return {path.name: path.read_bytes() for path in (project / "data/traces").iterdir()}


def test_every_kind_of_fault_is_counted_and_its_slate_skipped(project: Path) -> None:
    kinds = {
        "refused": Canned({}, 400),
        "server_error": Canned({}, 500),
        "busy": Canned({}, 429),
        "timeout": Canned(reply("too late"), seconds=SLOW_S),
        "garbage": Canned(b"<html>"),
        "empty": Canned(reply(None)),
        "thinking": Canned(reply(None, "length", reasoning_content="hm")),
        "language": Canned(reply(GERMAN)),
        "repeats_prompt": Canned(reply(INSTRUCTION)),
        "malformed": Canned(reply("I cannot say.")),
        "unfinished": Canned(reply(" 1 pattern: Drama", "length")),
    }
    teacher = Teacher(dict(enumerate(kinds.values())))
    with openai_stub(teacher) as stub:
        run(project, stub, keep_invocations=True)
        assert set(stub.keys) == {"Bearer sk-planted"}
    metrics = read_json(project / "data/traces/metrics.json")
    assert metrics["sampling"]["faults"] == dict.fromkeys(kinds, 1)
    good = len(SCORED) - len(kinds)
    assert metrics["sampling"]["kept_traces"] == good
    served = good + 6
    assert metrics["endpoint"] == {
        "answers": served,
        "failed": {"busy": 1, "garbage": 1, "refused": 1, "server_error": 1, "timeout": 1},
        "prompt_tokens": 10 * served,
        "completion_tokens": 4 * served,
        "cost": pytest.approx(8 * served / 1e6),
    }
    kept = pl.read_parquet(project / "data/traces/invocations.parquet").sort("slate")
    assert kept.height == len(SCORED) and kept["finish"].to_list()[: len(kinds)] == [
        *("refused", "server_error", "busy", "timeout", "garbage", "empty", "thinking", "stop", "stop", "stop", "length")
    ]
    assert kept["prompt"][0].startswith("system: You analyse") and kept["completion"][7] == GERMAN
    planted = [path for path in project.rglob("*") if path.is_file() and b"sk-planted" in path.read_bytes()]
    assert planted == []


def test_a_run_that_is_resumed_asks_for_the_rest_and_ends_with_the_same_bytes(project: Path) -> None:
    teacher = Teacher()
    with openai_stub(teacher) as stub:
        whole = run(project, stub)
        assert sorted(teacher.asked) == list(range(len(SCORED))) and not (project / ".gr2/resume/traces/answers.jsonl").exists()
        teacher.asked, teacher.good = [], 5
        with pytest.raises(StageError, match=r"requests one after the other failed .*what it answered is kept"):
            run(project, stub)
        answered = set(teacher.asked[:5])
        teacher.asked, teacher.good = [], 9999
        assert run(project, stub) == whole
        assert sorted(teacher.asked) == sorted(set(range(len(SCORED))) - answered)
