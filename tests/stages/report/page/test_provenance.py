from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from stages.report.page.provenance import READ_FILES, SHOWN_SECTIONS, STAGES, provenance, read_shown_params
from stages.shared.core.errors import StageError
from stages.shared.evaluation.content_hash import content_md5

ROOT = Path(__file__).resolve().parents[4]
PARAMS = {stage: {"seed": place} for place, stage in enumerate(STAGES)}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in READ_FILES:
        path = Path("data") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return Path("data")


def test_the_page_shows_and_hashes_nothing_undeclared():
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]
    assert sorted(declared["params"]) == sorted(SHOWN_SECTIONS)
    assert set(SHOWN_SECTIONS) == set(yaml.safe_load((ROOT / "params.yaml").read_text())) - {"resources", "promote"}
    deps = {dep for dep in declared["deps"] if dep.startswith("data/") and not dep.startswith("data/evaluate/")}
    assert deps == {f"data/{name}" for name in READ_FILES}


def test_every_stage_has_its_parameters_and_the_hashes_of_its_outputs(data):
    evaluated = {"data/rl/model": "ab12cd34ef.dir", "data/retrieve/slates.parquet": content_md5(data / "retrieve/slates.parquet")}
    chain = provenance(evaluated, PARAMS, data)
    assert [link.stage for link in chain] == list(STAGES)
    assert [link.params for link in chain] == [{stage: PARAMS[stage]} for stage in STAGES]
    links = {link.stage: link for link in chain}
    assert [path for path, _ in links["rl"].outputs] == ["data/rl/metrics.json", "data/rl/model", "data/rl/steps.csv"]
    assert ("data/rl/model", "ab12cd34") in links["rl"].outputs
    assert not any(link.broken for link in chain)


def test_an_output_that_the_evaluation_did_not_read_is_marked(data):
    chain = provenance({"data/retrieve/slates.parquet": "0" * 32}, PARAMS, data)
    assert {link.stage: link.broken for link in chain if link.broken} == {"retrieve": ["data/retrieve/slates.parquet"]}


def test_what_a_stage_takes_of_a_machine_is_not_shown(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({section: {"seed": 1} for section in SHOWN_SECTIONS} | {"resources": {"rl": {"cpus": 2}}}))
    assert set(read_shown_params(path)) == set(SHOWN_SECTIONS)
    path.write_text(yaml.safe_dump({section: {} for section in SHOWN_SECTIONS if section != "rl"}))
    with pytest.raises(StageError, match="the section 'rl' is missing"):
        read_shown_params(path)


def test_hashes_are_those_of_dvc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.txt", "a.txt", "deep/c.txt", "deep.txt", "Ä.txt"):
        (folder / name).write_text(name)
    (tmp_path / "one.csv").write_text("x")
    with Repo.init(no_scm=True) as repo:
        for path in ("model", "one.csv"):
            repo.add(path)
            recorded = yaml.safe_load(Path(f"{path}.dvc").read_text())["outs"][0]["md5"]
            assert content_md5(Path(path)) == recorded
