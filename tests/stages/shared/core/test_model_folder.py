"""A model is named by a path that DVC can follow; the words of before 0.2.0 say their new spelling."""

from pathlib import Path

import pytest
import yaml

from stages.embed.params import EmbedParams
from stages.midtrain.params import MidtrainParams
from stages.shared.core.errors import StageError
from stages.shared.core.params import load_params
from stages.traces.params import TracesParams
from tasks.project.graph import read_graph

ROOT = Path(__file__).parents[4]
MODELS = {"embed": EmbedParams, "midtrain": MidtrainParams, "traces": TracesParams}


@pytest.mark.parametrize(
    ("section", "value", "spelling"),
    [
        ("embed", "packaged-minilm", "write it as infra/models/packaged-minilm"),
        ("midtrain", "scratch", "write it as infra/models/scratch"),
        ("midtrain", "packaged:smollm2-135m", "write it as infra/models/smollm2-135m"),
        ("traces", "", "write it as infra/models/none"),
        ("embed", "models/x/", "write the path as models/x"),
    ],
)
def test_the_new_spelling(tmp_path, section, value, spelling):
    values = {"language_model": {"model": value}} if section == "traces" else {"model": value}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({section: values}))
    with pytest.raises(StageError, match=rf"{section}\..*model: .*{spelling}"):
        load_params(section, MODELS[section], tmp_path / "params.yaml")


def test_each_is_a_dependency_and_the_default_exists():
    params = yaml.safe_load((ROOT / "infra/profiles/default.yaml").read_text())
    values = {
        "embed": params["embed"]["model"],
        "midtrain": params["midtrain"]["model"],
        "traces": params["traces"]["language_model"]["model"],
    }
    graph = read_graph(ROOT)
    for stage, value in values.items():
        assert (ROOT / value).is_dir() and value in graph[stage].deps
