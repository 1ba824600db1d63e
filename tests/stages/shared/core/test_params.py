from itertools import pairwise

import pytest

from stages.evaluate.params import EvaluateParams
from stages.midtrain.params import MidtrainParams
from stages.retrieve.params import RetrieveParams
from stages.rl.params import RlParams
from stages.sft.params import SftParams
from stages.shared.core.errors import StageError
from stages.shared.core.params import MOVED_KEYS, REMOVED_KEYS, RENAMED_KEYS, ComputeSection, Section, load_params, validate_section
from stages.shared.slates.prompt_params import PromptParams
from stages.traces.params import TracesParams


class Inner(Section):
    rounds: int = 3


class Params(ComputeSection):
    rate: float = 0.5
    name: str = "a"
    scorer: Inner = Inner()


def load(tmp_path, text: str | bytes) -> Params:
    (tmp_path / "params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_params("stage", Params, tmp_path / "params.yaml")


def test_values_are_read_and_the_rest_is_the_default(tmp_path):
    params = load(tmp_path, "stage:\n  rate: 1\n  scorer: {rounds: 9}\nother: {x: 1}\n")
    assert (params.rate, params.scorer.rounds, params.name, params.seed) == (1.0, 9, "a", 7)
    assert load(tmp_path, "stage: {}\n") == Params()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("rat: 0.1", r"stage\.rat: unknown key; did you mean 'rate'\? \(valid: seed, threads, rate, name, scorer\)"),
        ("scorer: {round: 1}", r"stage\.scorer\.round: unknown key; did you mean 'rounds'\? \(valid: rounds\)"),
        ("rate: fast", r"stage\.rate: .*number.* \(got 'fast', a str\)"),
        ("threads: '2'", r"stage\.threads: .*integer.* \(got '2', a str\)"),
        ("threads: 0", r"stage\.threads: .*greater than or equal to 1.* \(got 0, a int\)"),
        ("seed: true", r"stage\.seed: .*integer.* \(got True, a bool\)"),
        ("name: 3", r"stage\.name: .*string.* \(got 3, a int\)"),
        ("scorer: 3", r"stage\.scorer: .* \(got 3, a int\)"),
        ("rate:", r"stage\.rate: .* \(got None, a NoneType\)"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(tmp_path, line, message):
    with pytest.raises(StageError, match=r"params\.yaml: " + message):
        load(tmp_path, f"stage:\n  {line}\n")


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(StageError) as caught:
        load(tmp_path, "stage: {rat: 1, threads: x}\n")
    assert len(str(caught.value).splitlines()) == 2


BOMB = "a: &a [1, 1]\n" + "".join(f"{name}: &{name} [*{before}, *{before}]\n" for before, name in pairwise("abcdefghijklmnopqrstuvwxyz"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other: {}\n", "the section 'stage' is missing; copy it from infra/profiles/default.yaml"),
        ("", "the section 'stage' is missing"),
        ("- a\n", "the section 'stage' is missing"),
        (b"stage: {name: \xff\xfe}\n", "not valid UTF-8 YAML"),
        ("stage: {name: [}\n", "not valid UTF-8 YAML"),
        ("stage: [1]\n", r"params\.yaml: stage: .*\(got \[1\], a list\)"),
        ("stage: []\n", r"params\.yaml: stage: .*\(got \[\], a list\)"),
        ("stage:\n", r"params\.yaml: stage: a mapping of keys is expected \(got nothing\)"),
        (BOMB, r"params\.yaml: its aliases \(\*name\) stand for more than 100,000 values"),
        ("stage: &a {scorer: *a}\n", r"params\.yaml: it is nested too deeply, or an alias"),
    ],
)
def test_a_file_that_does_not_hold_the_section(tmp_path, text, message):
    with pytest.raises(StageError, match=message):
        load(tmp_path, text)


SECTIONS = {"retrieve": RetrieveParams, "prompt": PromptParams, "traces": TracesParams, "rl": RlParams, "evaluate": EvaluateParams}


@pytest.mark.parametrize(("section", "model"), SECTIONS.items())
def test_a_renamed_key_is_told_its_new_name(section, model):
    renamed = {key.partition(".")[2]: new for key, new in RENAMED_KEYS.items() if key.startswith(f"{section}.")}
    assert {key.partition(".")[0] for key in RENAMED_KEYS} == set(SECTIONS)
    assert renamed and set(renamed.values()) <= set(model.model_fields) and not set(renamed) & set(model.model_fields)
    for old, new in renamed.items():
        with pytest.raises(StageError, match=rf"params\.yaml: {section}\.{old}: this key is now named '{new}'; rename it"):
            validate_section(section, model, {old: 1}, "params.yaml")


def test_a_renamed_section_is_told_its_new_name(tmp_path):
    (tmp_path / "params.yaml").write_text("prerank: {seed: 1}\n")
    with pytest.raises(StageError, match=r"params\.yaml: the section 'prerank' is now named 'retrieve'; rename it"):
        load_params("retrieve", RetrieveParams, tmp_path / "params.yaml")


def test_a_missing_file_says_where_to_stand(tmp_path):
    with pytest.raises(StageError, match=r"params\.yaml: no such file; run from the root of the project"):
        load_params("stage", Params, tmp_path / "params.yaml")


def test_a_section_cannot_be_changed_later():
    with pytest.raises(ValueError):
        validate_section("stage", Params, {}, "x").rate = 1.0


@pytest.mark.parametrize("key", MOVED_KEYS)
def test_a_moved_key_is_named_with_its_section(key: str) -> None:
    section, _, name = key.partition(".")
    with pytest.raises(StageError, match=rf"p: {key}: this key is now in the section '{MOVED_KEYS[key]}'; move it there"):
        validate_section(section, ComputeSection, {name: 1}, "p")


@pytest.mark.parametrize("key", ["midtrain.copy_circuit", "midtrain.skill_share", "sft.no_reasoning_arm"])
def test_a_key_that_is_gone_says_what_to_do_instead(key):
    section, _, name = key.partition(".")
    model = {"midtrain": MidtrainParams, "sft": SftParams}[section]
    with pytest.raises(StageError, match=rf"params\.yaml: {section}\.{name}: this key is gone; .+"):
        validate_section(section, model, {name: 1}, "params.yaml")
    assert name not in model.model_fields and REMOVED_KEYS[key]
