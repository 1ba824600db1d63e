"""`make test` with commands that only say that they ran: lint is beside the tests, and a failure of either fails the command."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TYPES = "what mypy found"
PASSES = "style, types and import rules: pass"
# Each waits until the other has begun.
MEET = """\
touch "$MEETING/$(basename "$0")"
for i in $(seq 6000); do test -e "$MEETING/{other}" && break; sleep 0.1; done
test $i -lt 6000 || exit 9
"""
COMMANDS = {
    "ruff": "exit 0",
    "mypy": f"{MEET.format(other='python')}echo '{TYPES}'; exit $MYPY",
    "lint-imports": "echo imports",
    "python": f'{MEET.format(other="mypy")}echo "tests: $*"; exit $TESTS',
}


def make_test(folder: Path, mypy: int = 0, tests: int = 0) -> "subprocess.CompletedProcess[str]":
    """`make test` with COMMANDS in place of an environment; mypy and the tests end with these exit codes."""
    (folder / "bin").mkdir(parents=True)
    for name, text in COMMANDS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "meeting").mkdir()
    (folder / ".installed").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    environment |= {"MEETING": str(folder / "meeting"), "MYPY": str(mypy), "TESTS": str(tests)}
    return subprocess.run(
        ["make", "test", f"VENV={folder}"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


@pytest.mark.parametrize("tests", [0, 1])
def test_lint_runs_beside_the_tests_and_takes_one_line_where_it_passes(tmp_path: Path, tests: int) -> None:
    result = make_test(tmp_path / "venv", tests=tests)
    assert (result.returncode != 0) == bool(tests), result.stdout + result.stderr
    lines = [line for line in result.stdout.splitlines() if not line.startswith("make")]
    assert lines[-1] == PASSES and TYPES not in lines
    assert lines[-2].startswith("tests: -m pytest"), "what the tests say last stays at the end of a log that is cut"


@pytest.mark.parametrize("tests", [0, 1])
def test_a_failure_of_lint_fails_the_command_and_hides_nothing(tmp_path: Path, tests: int) -> None:
    result = make_test(tmp_path / "venv", mypy=1, tests=tests)
    assert result.returncode != 0 and PASSES not in result.stdout
    assert "tests: -m pytest" in result.stdout, "a failure of lint does not end the tests"
    shown = result.stdout[result.stdout.rindex(TYPES) :]
    assert "Error" in shown and "tests:" not in shown
    assert f"suite] Error {tests}" in result.stderr or not tests
