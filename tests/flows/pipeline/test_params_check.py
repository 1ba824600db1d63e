"""What a run checks before it starts anything."""

from pathlib import Path

import pytest

from flows.pipeline.params_check import check_params
from tasks.system.errors import ProjectError


def test_code_that_dvc_yaml_does_not_list_is_named(tmp_path: Path) -> None:
    """A helper in a package of its own, which DVC would not look at: it is found when it is first imported, not when an edit is lost."""
    for package in ("a", "helpers"):
        (tmp_path / "stages" / package).mkdir(parents=True)
    main, helper = tmp_path / "stages/a/__main__.py", tmp_path / "stages/helpers/words.py"
    main.write_text("print(1)\n")
    helper.write_text("WORDS = 1\n")
    (tmp_path / "params.yaml").write_text("a: {}\n")
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: python -m stages.a, deps: [stages/a], outs: [data/a]}}\n")
    check_params(tmp_path)
    main.write_text("from stages.helpers import words\n")
    with pytest.raises(ProjectError, match=r"dvc\.yaml: stages\.a\.deps: stages\.helpers is imported and not listed"):
        check_params(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: python -m stages.a, deps: [stages/a, stages/helpers], outs: [data/a]}}\n")
    check_params(tmp_path)
