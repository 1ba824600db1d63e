"""The scripts of bench/ start on the project as it is; the figures of the code are counted right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.rl.params import RlParams
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.prompt_params import PromptParams
from tests.stages.shared.slates.test_compact import CATALOG, SLATE
from tests.support import forked_processes
from tests.support.chat_models import chat_tokenizer

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import code_figures
import ingest_scale
import prefix_sharing

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("code_figures", "compare_data", "import_edges", "ingest_scale", "overhead", "tokenizer_scale", "verify")
HEAVY = (  # these import torch, or start a store
    "beyond_teacher",
    "constraint_cost",
    "default_seeds",
    "direct_policy",
    "faults",
    "few_traces",
    "freed_memory",
    "generation_speed",
    "hack_watch",
    "injection",
    "language_model_arms",
    "midtrain_tasks",
    "more_features",
    "newcomer",
    "one_pass",
    "prefix_sharing",
    "quantization",
    "retrieval",
    "rl_allocation",
    "rl_step",
    "serving_load",
    "slates",
    "sorting_step",
    "throughput",
    "tokenizer_ablation",
    "tokenizer_packages",
    "vocabulary_arms",
    "world_learnable",
    "world_relevances",
    "zero3_memory",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_heavy_scripts_explain_themselves(name: str, tmp_path: Path) -> None:
    result = forked_processes.run_script(ROOT / "bench" / f"{name}.py", tmp_path, "--help")
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stderr


@pytest.mark.parametrize("name", QUICK)
def test_scripts_explain_themselves(name: str) -> None:
    command = [sys.executable, str(ROOT / "bench" / f"{name}.py"), "--help"]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage:" in result.stdout


@pytest.mark.slow
def test_every_arm_of_allocation_can_be_run() -> None:
    import rl_allocation  # torch

    arms = {name: RlParams.model_validate({"group": 8, "allocation": values}).allocation for name, values in rl_allocation.ARMS.items()}
    assert [name for name, allocation in arms.items() if allocation == RlParams().allocation] == [rl_allocation.PLAIN]


@pytest.mark.slow
def test_a_step_of_rl_is_measured_beside_trl(tmp_path: Path) -> None:
    """Sizes at which nothing is fast; the arithmetic is counted all the same."""
    small = ["--group", "4", "--groups", "1", "--answer", "6", "--hidden", "64", "--layers", "1", "--repeats", "1", "--threads", "1"]
    command = [sys.executable, str(ROOT / "bench/rl_step.py"), str(tmp_path), "--settings", "float32", "all", "--prompts", "90", *small]
    command += ["--rollouts", "--result", str(tmp_path / "result.md")]
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = [
        line.strip("| ").split(" | ") for line in (tmp_path / "result.md").read_text().splitlines() if line.startswith(("| fl", "| all"))
    ]
    assert [row[::2][:2] for row in rows] == [
        [row[0], side] for row, side in zip(rows, ("tree", "cache", "trl", "tree", "trl"), strict=True)
    ]
    assert all(float(row[8]) > 0 and float(row[9].split()[0]) > 0 for row in rows), "rollouts, and the whole step beside TRL's"
    least = {(row[0], row[2]): float(row[7]) for row in rows}
    # 24 answer tokens behind a prompt of 90 once, or four times.
    assert 1.0 <= least["float32", "tree"] < 1.3 and least["float32", "trl"] > 2 * least["float32", "tree"]
    assert least["all", "trl"] > 1.5 * least["all", "tree"], "the tree recomputes a layer, not a prompt for each answer"


def test_every_script_with_a_main_is_covered() -> None:
    scripts = {path.stem for path in (ROOT / "bench").glob("*.py") if "argparse" in path.read_text(encoding="utf-8")}
    assert scripts == {*QUICK, *HEAVY}


def test_figures_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tasks" / "x" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from typing import Any\n\n\nclass A:\n    x: Any  # why\n\n\n"
        "def f() -> None:\n    import json  # noqa: F401\n    assert '# no comment'\n"
    )
    figures = code_figures.read_file(path, tmp_path)
    assert (figures.lines, figures.comments, figures.any_names, figures.classes, figures.inner_imports) == (10, 1, 1, ("A",), (9,))
    (path.parent / "b.py").write_text("class A:\n    pass\n")
    files = code_figures.read_room(tmp_path, "tasks")
    assert code_figures.package_sizes(files) == {"tasks/x": 2}
    assert code_figures.duplicate_classes(files) == {"A": ["tasks/x/a.py", "tasks/x/b.py"]}


def test_a_side_that_holds_too_much_memory_is_ended(tmp_path: Path) -> None:
    script = "import time; a = bytearray(%d); time.sleep(%d)"
    assert ingest_scale.measured([sys.executable, "-c", script % (3 * 10**8, 600)], tmp_path, limit_gb=0.2)[0] == 0
    assert ingest_scale.measured([sys.executable, "-c", script % (10**6, 0)], tmp_path, limit_gb=0.2)[0] > 0


def test_rows_that_the_disk_has_no_room_for(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--folder"):
        ingest_scale.compare(10**15, False, tmp_path, None)
    assert not [*tmp_path.iterdir()]


PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9), max_size=8)


@settings(deadline=None)
@given(PROMPTS, st.integers(1, 3))
def test_what_prompts_share_by_brute_force(prompts: list[list[int]], block: int) -> None:
    """Of each prompt, the longest whole number of blocks, not to its end, with which an earlier one begins."""
    expected = 0
    for place, prompt in enumerate(prompts):
        lengths = range(0, len(prompt), block)
        expected += max(length for length in lengths if not length or any(p[:length] == prompt[:length] for p in prompts[:place]))
    assert prefix_sharing.shared_tokens(prompts, block) == expected


def test_shuffled_orders_share_the_history_where_it_comes_first() -> None:
    shared = {}
    for first in (False, True):
        options = PromptParams(layout="chat", history=4, titles=True, candidates_first=first)
        encoded = EncodedLayout(ChatLayout(CATALOG, options), chat_tokenizer())
        ways = prefix_sharing.asked(encoded, [SLATE], orders=4, answers=3)
        assert [len(prompts) for prompts in ways.values()] == [1, 4, 3]
        plain, shuffled, answers = (prefix_sharing.shared_tokens(prompts, 1) for prompts in ways.values())
        assert plain == 0 and answers == 2 * (len(ways["one answer a slate"][0]) - 1), "all but the last token, twice"
        shared[first] = shuffled
    history = len(chat_tokenizer()("\n".join(CATALOG.titles[:4]), add_special_tokens=False)["input_ids"])
    assert shared[False] > shared[True] + 2 * history
