"""Profiles: rendering, what they refuse, and what becomes of params.yaml."""

from itertools import permutations
from pathlib import Path

import pytest

from tasks.project import profiles
from tasks.project.overrides import planned
from tasks.system.errors import ProjectError
from tasks.system.yaml_files import parse
from tests.support import dvc_toy

DEFAULT = """\
# the default profile
rl:
  alpha: 0.2  # GR2 section 6
  rate: 5.0e-7
  stages: [1, 2]
  "extra": {}
sft:
  steps: 100
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "infra/profiles"
    folder.mkdir(parents=True)
    (folder / "default.yaml").write_text(DEFAULT)
    (folder / "smoke.yaml").write_text("rl: {alpha: 0.3, stages: [9], rate: 2.0e-6, extra: {any: 1}}\n")
    (folder / "same.yaml").write_text("# nothing\n")
    (tmp_path / "params.yaml").write_text(DEFAULT)
    dvc_toy.call(tmp_path, "git", "init", "-q")
    dvc_toy.commit(tmp_path, "start")
    return tmp_path


def test_render(project: Path) -> None:
    assert profiles.profile_names(project) == ["default", "same", "smoke"]
    assert profiles.render(project, "default") == DEFAULT == profiles.render(project, "same")
    text = profiles.render(project, "smoke")
    assert text == profiles.render(project, "smoke")
    assert "# GR2 section 6" in text and "rate: 2.0e-6" in text
    rl = {"alpha": 0.3, "rate": 2e-6, "stages": [9], "extra": {"any": 1}}
    assert parse(text, "") == {"rl": rl, "sft": {"steps": 100}}


def test_what_a_profile_may_not_say(project: Path) -> None:
    folder = project / "infra/profiles"
    with pytest.raises(ProjectError, match=r"did you mean 'smoke'.*profiles: default, same, smoke"):
        profiles.render(project, "smok")
    for text, message in [
        ("rl: {alpa: 1}", r"rl\.alpa: default.yaml has no such key; did you mean 'alpha'"),
        ("r1: {alpha: 1}", "r1: default.yaml has no such key; did you mean 'rl'"),
        ("rl: {rate: 5e-7}", r"rl\.rate: YAML 1.1 reads '5e-7'"),
        ("- 1", "a mapping of sections"),
    ]:
        (folder / "bad.yaml").write_text(text)
        with pytest.raises(ProjectError, match=message):
            profiles.render(project, "bad")


def test_apply(project: Path) -> None:
    params = project / "params.yaml"
    before = params.stat()
    assert profiles.apply(project, "default") == []
    assert params.stat().st_mtime_ns == before.st_mtime_ns and params.stat().st_ino == before.st_ino
    assert "rl.alpha: 0.2 -> 0.3" in profiles.apply(project, "smoke")
    assert profiles.matching_profiles(project) == ["smoke"]
    profiles.apply(project, "default")  # from one profile to another: nothing is lost
    assert params.read_text() == DEFAULT
    params.unlink()
    assert profiles.apply(project, "smoke") == ["params.yaml written from the profile smoke"]


def test_edits_are_not_lost(project: Path) -> None:
    params = project / "params.yaml"
    edited = DEFAULT.replace("steps: 100", "steps: 7")
    params.write_text(edited)
    assert profiles.matching_profiles(project) == []
    with pytest.raises(ProjectError, match=r"overwrite: sft\.steps\. .*gr2 run --profile smoke --discard-edits"):
        profiles.apply(project, "smoke")
    assert params.read_text() == edited
    dvc_toy.commit(project, "edited")
    profiles.apply(project, "smoke")  # git has the edits now
    params.write_text(edited.replace("7", "8"))
    assert "sft.steps: 8 -> 100" in profiles.apply(project, "default", discard_edits=True)
    assert params.read_text() == DEFAULT


def test_a_profile_with_values_of_the_command_line(project: Path) -> None:
    """--profile and --set are one change of params.yaml: values are checked against the profile, and a repetition changes nothing."""
    text = planned(project, ["smoke"], ["sft.steps=7", "rl.alpha=1"])
    assert text and "# GR2 section 6" in text
    rl = {"alpha": 1.0, "rate": 2e-6, "stages": [9], "extra": {"any": 1}}
    assert parse(text, "") == {"rl": rl, "sft": {"steps": 7}}
    assert (project / "params.yaml").read_text() == DEFAULT
    changes = profiles.apply(project, "smoke", text=text)
    assert "sft.steps: 100 -> 7" in changes and (project / "params.yaml").read_text() == text
    assert profiles.apply(project, "smoke", text=planned(project, ["smoke"], ["sft.steps=7", "rl.alpha=1"])) == []
    assert planned(project, ["smoke"], ["rl.extra.any=5"]), "a key that the profile brought, and the default lacks"
    with pytest.raises(ProjectError, match="overwrite: rl"):
        profiles.apply(project, "same")
    assert planned(project, [], []) is None


@pytest.fixture
def three(project: Path) -> Path:
    """`smoke` and `data` set rl.alpha differently; `data` and `big` put different keys into one empty mapping."""
    folder = project / "infra/profiles"
    (folder / "data.yaml").write_text("rl: {alpha: 0.9, extra: {other: 2}}\n")
    (folder / "big.yaml").write_text("sft: {steps: 5000}\nrl: {extra: {any: 3}}\n")
    return project


def test_profiles_are_laid_over_each_other_and_the_later_counts(three: Path) -> None:
    both = parse(profiles.render(three, "smoke", "data"), "")
    assert both == {"rl": {"alpha": 0.9, "rate": 2e-6, "stages": [9], "extra": {"any": 1, "other": 2}}, "sft": {"steps": 100}}
    assert parse(profiles.render(three, "data", "smoke"), "")["rl"]["alpha"] == 0.3
    assert profiles.render(three, "default", "smoke") == profiles.render(three, "smoke") == profiles.render(three, "same", "smoke")
    assert "# GR2 section 6" in profiles.render(three, "data", "big")
    for names, message in [
        (("data", "data"), "data: given twice"),
        (("data", "default"), "complete"),
        (("data", "bg"), "did you mean 'big'"),
    ]:
        with pytest.raises(ProjectError, match=message):
            profiles.render(three, *names)


@pytest.mark.parametrize("names", [names for size in (1, 2, 3) for names in permutations(["smoke", "data", "big"], size)])
def test_a_combination_is_known_again_and_is_no_edit(three: Path, names: tuple[str, ...]) -> None:
    profiles.apply(three, *names)
    known = profiles.matching_profiles(three)
    # In another order where that gives the same; never with a profile that adds nothing.
    assert sorted(known) == sorted(names) and parse(profiles.render(three, *known), "") == parse(profiles.render(three, *names), "")
    profiles.apply(three, "default")  # nothing to lose
    assert profiles.matching_profiles(three) == ["default"]


def test_an_edited_combination_is_not_overwritten(three: Path) -> None:
    profiles.apply(three, "data", "big")
    params = three / "params.yaml"
    params.write_text(params.read_text().replace("5000", "5001"))
    with pytest.raises(ProjectError, match=r"smoke \+ big would overwrite: .*sft\.steps.*gr2 run --profile smoke --profile big --discard"):
        profiles.apply(three, "smoke", "big")
