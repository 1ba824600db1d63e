"""Each mode of the stage on a small project: something measurable improves, equal runs give equal bytes, bad folders are told at once."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.distil import answers, modes
from stages.distil.distil import distil
from stages.distil.on_policy import StudentRollouts
from stages.distil.params import DistilParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.lm.encoding import encode
from stages.shared.lm.models import load_model, load_tokenizer, save_model
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.marks import THINK_END
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.training.params import OptimizerSection
from stages.shared.training.trainer import train_supervised
from tests.support.small_project import CATALOG, SPLITS, make_slates, make_tables, own_items, write_project
from tests.support.tiny_models import tiny_folder, tiny_model, tiny_tokenizer

SMALL: dict[str, Any] = {
    "threads": 1, "steps": 30, "batch_size": 8, "lr": 1e-2, "log_every": 5, "loss_chunk": 64, "max_tokens": 24,
    "probe_slates": 12, "max_slates": 60,
}  # fmt: skip
TEACHER, REASONER = "models/teacher", "models/reasoner"
ON_POLICY = {"mode": "on_policy", "teacher": TEACHER, "lr": 3e-3}
ANSWERS = {"teacher": REASONER}


@pytest.fixture(scope="module")
def reasoner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that thinks a few words and then turns the order shown round: a rule that is learnt in seconds."""
    folder = tiny_folder(tmp_path_factory.mktemp("models") / "reasoner", seed=2)
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    layout = layout_of(CATALOG, PromptParams())
    said = [
        (layout.prompt(slate), f" 1 pattern: Drama 2 match:{THINK_END}" + layout.answer(slate, [3, 2, 1, 0])) for slate in make_slates()
    ]
    rows = encode([[(prompt, 0.0), (text, 1.0)] for prompt, text in said], tokenizer)
    train_supervised(model, rows * 2, OptimizerSection(threads=1, steps=40, batch_size=8, lr=1e-2), tokenizer.pad_token_id)
    save_model(model, tokenizer, folder)
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reasoner: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("prompt: {}\n")
    write_project(tmp_path)
    tiny_folder(tmp_path / "data/sft/model")
    tiny_folder(tmp_path / TEACHER, seed=1)
    shutil.copytree(reasoner, tmp_path / REASONER)
    return tmp_path


def run(project: Path, **more: Any) -> dict[str, bytes]:
    with stage_outputs("distil") as outputs:
        distil(DistilParams.model_validate(SMALL | more), outputs)
    folder = project / "data/distil"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def figures(project: Path) -> dict[str, Any]:
    return read_json(project / "data/distil/metrics.json")


def test_none_makes_an_empty_folder_and_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, mode="none") == {"loss.csv": b"step,loss,lr\n", "metrics.json": b'{\n  "mode": "none"\n}\n'}
    assert (tmp_path / "data/distil/model").is_dir()


@pytest.mark.parametrize("divergence", ["forward", "reverse", "jsd"])
def test_on_policy_comes_nearer_to_the_teacher(project: Path, divergence: str) -> None:
    written = run(project, **ON_POLICY, divergence=divergence)
    gap = figures(project)["teacher_gap"]
    assert gap["after"]["divergence"] < 0.8 * gap["before"]["divergence"]
    assert figures(project)["slates"] == 60 and figures(project)["probe_slates"] == 12 and figures(project)["leak_check"]["overlap"] == 0
    assert written["loss.csv"].count(b"\n") == 1 + 1 + 6
    teacher = load_model(project / TEACHER).state_dict()
    assert all(teacher[name].equal(part) for name, part in tiny_teacher_state(project).items()), "frozen"


def tiny_teacher_state(project: Path) -> dict[str, Any]:
    tokenizer = tiny_tokenizer()
    return tiny_model(-(-len(tokenizer) // 64) * 64, tokenizer.pad_token_id, tokenizer.eos_token_id, seed=1).state_dict()


def test_answers_at_once_come_to_agree_with_the_reasoning_model(project: Path) -> None:
    run(project, **ANSWERS, mode="answer_only")
    found = figures(project)
    before, after = found["at_once"]["before"], found["at_once"]["after"]
    assert before["valid"] < 0.2 and after == {"valid": 1.0, "first": 1.0, "kendall_tau": 1.0}
    assert found["answered"] == {"valid": 72} and found["rows"] == {"at_once": 240} and "with_thoughts" not in found


def test_a_race_teaches_both_forms_in_one_model(project: Path) -> None:
    run(project, **ANSWERS, mode="race", steps=40)
    found = figures(project)
    assert found["rows"] == {"at_once": 160, "with_thoughts": 160}
    for form in ("at_once", "with_thoughts"):
        before, after = found[form]["before"], found[form]["after"]
        assert before["valid"] < 0.2 and after["valid"] > 0.9 and after["kendall_tau"] > 0.9


@pytest.mark.parametrize("mode", ["on_policy", "race"])
def test_equal_runs_give_equal_bytes_and_leave_nothing_behind(project: Path, mode: str) -> None:
    own = ON_POLICY if mode == "on_policy" else {**ANSWERS, "mode": mode}
    first = run(project, **own, steps=5)
    assert first == run(project, **own, steps=5)
    assert first["model/model.safetensors"] != run(project, **own, steps=5, seed=8)["model/model.safetensors"]
    assert not list((project / ".gr2").rglob("*.jsonl")) and not list((project / ".gr2").rglob("checkpoint-*"))


class Killed(BaseException):
    """As a kill: nothing catches it."""


@pytest.mark.parametrize("mode", ["on_policy", "answer_only"])
def test_a_killed_run_goes_on_from_its_checkpoint_and_asks_nothing_twice(project: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    own = {**(ON_POLICY if mode == "on_policy" else {**ANSWERS, "mode": mode}), "steps": 10}
    expected = run(project, **own)
    shutil.rmtree(project / "data/distil")

    sample = StudentRollouts.sample
    asked: list[Path] = []
    seeds: list[int] = []
    opened = answers.open_engine

    def open_engine(params: Any, folder: Path, *rest: Any) -> Any:
        asked.append(folder)
        return opened(params, folder, *rest)

    def sampled(self: StudentRollouts, model: Any, prompts: Any, seed: int, *rest: Any) -> Any:
        seeds.append(seed)
        if len(seeds) == 9:
            raise Killed
        return sample(self, model, prompts, seed, *rest)

    def finished(*args: Any) -> None:
        raise Killed

    monkeypatch.setattr(StudentRollouts, "sample", sampled)
    monkeypatch.setattr(answers, "open_engine", open_engine)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(modes, "finish", finished)
        run(project, **own, save_steps=5)
    assert not (project / "data/distil").exists()
    killed_after, asked_before = len(seeds), len(asked)
    seeds += [0] * (20 - killed_after)
    assert run(project, **own, save_steps=5) == expected
    if mode == "on_policy":
        # Killed in the eighth step; the checkpoint is of the fifth. The probe slates are sampled before and after.
        assert (killed_after, len(seeds) - 20) == (9, 1 + 5 + 1)
    else:
        assert asked_before == 2 and len(asked) == 2, "the reasoning model and the student as it begins, once each"


def test_the_best_of_validated_steps_is_kept(project: Path) -> None:
    run(project, **ON_POLICY, steps=10, validate_steps=5)
    found = figures(project)["validation"]
    assert found["rows"] == 12 and found["best_step"] in (5, 10) and found["best"] <= found["last"]


def test_adapters_learn_from_rollouts_too(project: Path) -> None:
    run(project, **ON_POLICY, steps=20, optimizer="adamw", lora={"rank": 4})
    gap = figures(project)["teacher_gap"]
    assert gap["after"]["divergence"] < gap["before"]["divergence"]


def with_another_token(project: Path) -> None:
    tokenizer = load_tokenizer(project / TEACHER)
    tokenizer.add_tokens(["<s_z_1>"])
    tokenizer.save_pretrained(project / TEACHER)


def with_more_rows(project: Path) -> None:
    model = load_model(project / TEACHER)
    model.resize_token_embeddings(model.config.vocab_size + 64, mean_resizing=False)
    save_model(model, load_tokenizer(project / TEACHER), project / TEACHER)


def without_weights(project: Path) -> None:
    (project / TEACHER / "model.safetensors").unlink()


def without_tokenizer(project: Path) -> None:
    shutil.rmtree(project / TEACHER)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_another_token, r"models/teacher: another vocabulary \('<s_z_1>' is no token for the student"),
        (with_more_rows, r"models/teacher: a head of \d+ rows, and the student's has"),
        (without_weights, r"models/teacher: no weights"),
        (without_tokenizer, r"models/teacher: not a Hugging Face model folder"),
    ],
)
def test_a_teacher_of_no_use_is_told_before_any_work(project: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, message: str) -> None:
    damage(project)
    monkeypatch.setattr(modes, "load_model", None)
    monkeypatch.setattr(modes, "train_supervised", None)
    with pytest.raises(StageError, match=message):
        run(project, **ON_POLICY)
    assert not (project / "data/distil").exists()


def test_only_answers_take_a_teacher_of_another_vocabulary(project: Path) -> None:
    shutil.rmtree(project / TEACHER)
    shutil.copytree(project / REASONER, project / TEACHER)
    with_another_token(project)
    run(project, mode="answer_only", teacher=TEACHER, steps=5)
    with pytest.raises(StageError, match="another vocabulary"):
        run(project, mode="race", teacher=TEACHER, steps=5)


def test_a_teacher_without_the_semantic_ids_is_refused(project: Path) -> None:
    path = project / TEACHER / "tokenizer.json"
    path.write_text(path.read_text().replace("<s_c_5>", "<s_c_x>"))
    with pytest.raises(StageError, match=r"does not know '<s_c_5>'"):
        run(project, mode="answer_only", teacher=TEACHER)


def test_a_reasoning_model_without_an_answer_teaches_nothing(project: Path) -> None:
    with pytest.raises(StageError, match=r"none of its answers to 60 slates is a permutation \(\{.*\}\): raise distil.max_tokens"):
        run(project, mode="answer_only", teacher=TEACHER)


def test_answers_need_reasoning(project: Path) -> None:
    (project / "params.yaml").write_text("prompt: {reasoning: false}\n")
    with pytest.raises(StageError, match=r"prompt\.reasoning is false; set it to true"):
        run(project, **ANSWERS, mode="answer_only")


def test_zero_3_is_refused_where_the_student_samples(project: Path) -> None:
    (project / "zero3.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    with pytest.raises(StageError, match="takes ZeRO stage 2 at most"):
        run(project, **ON_POLICY, deepspeed="zero3.json")


@pytest.mark.parametrize("held", ["valid", "test"])
def test_a_held_out_target_is_a_leak(project: Path, held: str) -> None:
    slates = make_slates()
    slates[7].candidates[slates[7].target_rank] = own_items(slates[7].user)[SPLITS.index(held)]
    write_project(project, make_tables(slates, PromptParams()))
    with pytest.raises(StageError, match=r"leak in distil: 1 held-out"):
        run(project, **ON_POLICY)


def test_slates_of_too_few_users(project: Path) -> None:
    write_project(project, make_tables([replace(slate, split="valid") for slate in make_slates()], PromptParams()))
    with pytest.raises(StageError, match=r"distil\.probe_slates: 12 leaves none of the 0 training slates"):
        run(project, **ON_POLICY)
