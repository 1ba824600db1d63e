"""The checks of promotion on what a real run wrote."""

import json
import sys

import pytest

from tests.support.project_clone import SmokeRun, call

pytestmark = pytest.mark.slow


def test_a_finished_run_can_be_checked(smoke: SmokeRun) -> None:
    """Forty slates of a model that learnt little: whether it would be promoted is not the question, but every check must have run."""
    result = call(smoke.root, sys.executable, "-m", "stages.promote", "--candidate", ".", "--artifact", "data/rl/model")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert [check["verdict"] for check in checks.values() if check["verdict"] == "could not run"] == [] and len(checks) == 12
    of_files = ("metrics", "evaluated", "weights", "vocabulary", "same slates")
    assert {name: checks[name]["verdict"] for name in of_files} == dict.fromkeys(of_files, "passed")
    assert checks["difference"]["evidence"]["slates"] == 40
    against_itself = call(smoke.root, sys.executable, "-m", "stages.promote", "--candidate", ".", "--champion", ".")
    difference = json.loads(against_itself.stdout)["checks"][6]
    assert (difference["name"], difference["verdict"], difference["evidence"]["diff"]) == ("difference", "passed", 0)
