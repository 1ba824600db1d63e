"""The example of docs/logged-slates.md: its files are what the code makes, and the profile `logged` reads them."""

import shutil
from contextlib import chdir

from stages.ingest.ingest import ingest
from stages.ingest.params import IngestParams
from stages.retrieve.params import RetrieveParams
from stages.retrieve.retrieve import retrieve
from stages.shared.core.outputs import DATA, read_json, stage_outputs
from stages.shared.core.yaml_text import load_yaml
from tasks.project.profiles import render
from tests.support.logged_example import write
from tests.support.project_clone import ROOT
from tests.support.retrieve_project import write_prompt_params

EXAMPLE = "infra/examples/logged-slates"


def test_the_files_are_those_of_the_code(tmp_path) -> None:
    write(tmp_path)
    names = ["shown.csv", "log/plays.csv", "log/songs.csv"]
    assert all((tmp_path / name).read_bytes() == (ROOT / EXAMPLE / name).read_bytes() for name in names)


def test_the_profile_makes_slates_of_every_split(tmp_path) -> None:
    params = load_yaml(render(ROOT, "smoke", "logged"), "params.yaml")
    shutil.copytree(ROOT / EXAMPLE, tmp_path / EXAMPLE)
    with chdir(tmp_path):
        write_prompt_params(tmp_path)
        with stage_outputs("ingest") as outputs:
            ingest(IngestParams(**params["ingest"]), outputs)
        with stage_outputs("retrieve") as outputs:
            retrieve(RetrieveParams(**params["retrieve"]), outputs)
        metrics = read_json(DATA / "retrieve/metrics.json")
    assert {split: counts["slates"] > 50 for split, counts in metrics["slates"].items()} == {"train": True, "valid": True, "test": True}
    given = metrics["given"]
    assert given["refused"] == {} and set(given["left_out"]) == {"what was taken lies in two splits"}
    assert given["several_taken"] > 0.1 and given["grades"].keys() == {"1", "2"}
    # The bias that the example was made with is to be seen in its figures.
    assert given["places"][0]["share"] > 2 * given["places"][3]["share"]
