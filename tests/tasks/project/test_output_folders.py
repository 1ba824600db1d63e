"""Outputs behind symbolic links are refused before a stage runs; links of DVC to its cache are not."""

from pathlib import Path

import pytest

from tasks.project.graph import read_graph
from tasks.project.output_folders import check_output_folders
from tasks.system.errors import ProjectError

DVC_YAML = "stages:\n  a: {cmd: a, outs: [data/a/model, data/a/out.txt]}\n  b: {cmd: b, outs: [data/b/out.txt]}\n"


@pytest.mark.parametrize("link", ["data", "data/a", "data/a/model"])
def test_a_folder_that_is_a_link(tmp_path: Path, link: str) -> None:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    graph = read_graph(tmp_path)
    check_output_folders(tmp_path, graph, graph.order)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(elsewhere)
    with pytest.raises(ProjectError, match=f"^{link}: a symbolic link .*dvc cache dir"):
        check_output_folders(tmp_path, graph, ["a"])
    if link != "data":
        check_output_folders(tmp_path, graph, ["b"])


def test_a_file_that_dvc_links_to_its_cache(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "data/b").mkdir(parents=True)
    (tmp_path / "object").touch()
    (tmp_path / "data/b/out.txt").symlink_to(tmp_path / "object")
    check_output_folders(tmp_path, read_graph(tmp_path), ["a", "b"])
