"""A model that brings its own program code is refused, without the libraries' advice to trust it."""

import json
from pathlib import Path
from typing import Any

import pytest

from stages.embed.model import model_folder
from stages.shared.core.errors import StageError
from stages.shared.core.model_folder import refuse_own_code
from stages.shared.lm.models import load_model

OWN = {"model_type": "homemade", "auto_map": {"AutoModelForCausalLM": "modeling_homemade.Homemade"}}


def folder(path: Path, config: Any, modules: Any = None) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").touch()
    (path / "modeling_homemade.py").write_text("raise SystemExit('it was run')\n")
    if modules is not None:
        (path / "modules.json").write_text(json.dumps(modules))
    return path


@pytest.mark.parametrize("load", [load_model, lambda path: model_folder(str(path)), refuse_own_code])
def test_code_of_a_model_is_refused(tmp_path: Path, load: Any) -> None:
    with pytest.raises(StageError, match=r"brings its own program code \(modeling_homemade\.py; .*never run here") as error:
        load(folder(tmp_path / "model", OWN))
    assert "trust_remote_code" not in str(error.value)


def test_so_is_a_module_of_sentence_transformers_from_elsewhere(tmp_path: Path) -> None:
    modules = [{"type": "sentence_transformers.models.Transformer"}, {"type": "custom_st.Pooling"}]
    with pytest.raises(StageError, match=r"custom_st\.Pooling"):
        refuse_own_code(folder(tmp_path / "model", {"model_type": "bert"}, modules))


def test_code_that_is_not_needed_is_no_reason(tmp_path: Path) -> None:
    """Many published folders of known models still hold the code of the time before their library knew them."""
    refuse_own_code(folder(tmp_path / "known", {**OWN, "model_type": "qwen2"}, [{"type": "sentence_transformers.models.Transformer"}]))
    refuse_own_code(tmp_path / "nowhere")
