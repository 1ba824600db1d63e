"""dvc.yaml as a graph: edges, order, resources, and errors that name the place."""

import re
from pathlib import Path

import pytest

from tasks.errors import ProjectError
from tasks.graph import read_graph

DIAMOND = """
stages:
  d: {cmd: run d, deps: [out/b, out/c/part.bin]}
  b: {cmd: run b, deps: [out/a], outs: [out/b]}
  c: {cmd: run c, deps: [out/a], outs: [{out/c: {cache: true}}], params: [c, c2, {other.yaml: [k]}]}
  a: {cmd: run a, deps: [code.py], outs: [out/a], metrics: [m.json], meta: {resources: {cpus: 4, gpus: 1, memory_gb: 2.5}}}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "dvc.yaml").write_text(text)
    return folder


def test_edges_order_and_resources(tmp_path: Path) -> None:
    graph = read_graph(write(tmp_path, DIAMOND))
    assert graph.order[0] == "a" and graph.order[-1] == "d"
    assert graph.upstream("d") == ["b", "c"]  # a dep inside an output folder counts
    assert set(graph.downstream("a")) == {"b", "c"}
    assert graph.closure(["b"]) == ["a", "b"]
    assert graph["c"].params == {"params.yaml": ("c", "c2"), "other.yaml": ("k",)}
    assert (graph["a"].cpus, graph["a"].gpus, graph["a"].memory_gb) == (4, 1, 2.5)
    assert graph["a"].outs == ("out/a", "m.json")
    producer = graph.producer("out/c/part.bin")
    assert producer is not None and producer.name == "c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [", "not valid YAML"),
        ("other: 1", "describes no stages"),
        ("stages: {a: {deps: [x]}}", "stages.a: no 'cmd'"),
        ("stages: {a: {cmd: x, deps: y}}", "stages.a.deps: a list"),
        ("stages: {a: {cmd: x, deps: [q], outs: [p]}, b: {cmd: x, deps: [p], outs: [q]}}", "in a circle: "),
    ],
)
def test_malformed(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProjectError, match=re.escape(message)):
        read_graph(write(tmp_path, text))


def test_missing_file_and_unknown_stage(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="run at the root"):
        read_graph(tmp_path)
    graph = read_graph(write(tmp_path, "stages: {midtrain: {cmd: x}, evaluate: {cmd: x}}"))
    with pytest.raises(ProjectError, match="did you mean 'midtrain'"):
        graph.closure(["midtran"])
