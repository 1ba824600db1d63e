"""`make test` with commands that only say that they ran: lint is beside the tests, and a failure of either fails the command."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TYPES = "what mypy found"
# Each waits until the other has begun.
MEET = """\
touch "$MEETING/$(basename "$0")"
for i in $(seq 300); do test -e "$MEETING/{other}" && break; sleep 0.1; done
test $i -lt 300 || exit 9
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
        ["make", "test", f"VENV={folder}"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_lint_runs_beside_the_tests_and_is_shown_last(tmp_path: Path) -> None:
    result = make_test(tmp_path / "venv")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines.index("imports") == len(lines) - 1 and result.stdout.count(TYPES) == 1
    assert lines.index(TYPES) > next(place for place, line in enumerate(lines) if line.startswith("tests: -m pytest"))


@pytest.mark.parametrize(("mypy", "tests"), [(1, 0), (0, 1), (1, 1)])
def test_a_failure_of_either_fails_the_command_and_hides_nothing(tmp_path: Path, mypy: int, tests: int) -> None:
    result = make_test(tmp_path / "venv", mypy, tests)
    assert result.returncode != 0
    assert "tests: -m pytest" in result.stdout, "a failure of lint does not end the tests"
    shown = result.stdout[result.stdout.rindex(TYPES) :]
    assert ("Error" in shown) == bool(mypy) and "tests:" not in shown
    assert f"suite] Error {tests}" in result.stderr or not tests
