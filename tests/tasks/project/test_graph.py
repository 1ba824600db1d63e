"""dvc.yaml as a graph: edges, order, resources, and errors that name the place."""

import re
from pathlib import Path

import pytest

from tasks.nodes.placement import Rule
from tasks.project.graph import Stage, read_graph
from tasks.project.output_folders import drop_other_shards
from tasks.project.params_check import check_sections
from tasks.run.plan import make_plan
from tasks.system.errors import ProjectError
from tests.support import dvc_toy

DIAMOND = """
stages:
  d: {cmd: run d, deps: [out/b, out/c/part.bin]}
  b: {cmd: run b, deps: [out/a], outs: [out/b]}
  c: {cmd: run c, deps: [out/a], outs: [{out/c: {cache: true}}], params: [c, c2, {other.yaml: [k]}]}
  a: {cmd: run a, deps: [code.py], outs: [out/a], metrics: [m.json]}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "dvc.yaml").write_text(text)
    return folder


def test_edges_order_and_resources(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("resources: {a: {cpus: 4, gpus: 1, memory_gb: 2.5}}\n")
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


def test_behind_a_stage_is_all_that_needs_it(tmp_path: Path) -> None:
    graph = read_graph(write(tmp_path, DIAMOND))
    assert graph.with_downstream("a") == graph.order
    assert graph.with_downstream("b") == ["b", "d"] and graph.with_downstream("d") == ["d"]
    with pytest.raises(ProjectError, match="unknown stage 'e'"):
        graph.with_downstream("e")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [", "not valid YAML"),
        ("other: 1", "describes no stages"),
        ("stages: {a: {deps: [x]}}", "stages.a: no 'cmd'"),
        ("stages: {a: {cmd: x, meta: {resources: {cpus: 1}}}}", "move them to resources.a"),
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


TEMPLATED = """
stages:
  first: {cmd: run first, outs: [data/items, data/model]}
  second: {cmd: "run --n ${second.deep.n} --on ${second.on}", deps: [code.py, data/items, "${second.reads}"], outs: [data/two]}
"""
VALUES = "second: {reads: data/items, deep: {n: 3}, on: true, none: null, empty: ''}\n"


def test_templates_are_filled_in_from_params(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(VALUES)
    second = read_graph(write(tmp_path, TEMPLATED))["second"]
    assert second.deps == ("code.py", "data/items"), "listed once, though named twice"
    assert second.cmd == "run --n 3 --on true"
    (tmp_path / "params.yaml").write_text(VALUES.replace("data/items", "data/model"))
    graph = read_graph(tmp_path)
    assert graph["second"].deps == ("code.py", "data/items", "data/model") and graph.upstream("second") == ["first"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("second.raeds", "${second.raeds}: params.yaml has no 'raeds' in second; did you mean 'reads'?"),
        ("secnd.reads", "params.yaml has no 'secnd' at its top; did you mean 'second'?"),
        ("second.reads.x", "params.yaml has no 'x' in second.reads"),
    ],
)
def test_templates_that_name_nothing(tmp_path: Path, key: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(VALUES)
    with pytest.raises(ProjectError, match=re.escape("dvc.yaml: stages.second.deps: ") + ".*" + re.escape(message)):
        read_graph(write(tmp_path, TEMPLATED.replace("second.reads", key)))


@pytest.mark.parametrize(("key", "value"), [("deep", "{'n': 3}"), ("none", "None"), ("empty", "''")])
def test_a_value_that_is_no_path_is_shown(tmp_path: Path, key: str, value: str) -> None:
    (tmp_path / "params.yaml").write_text(VALUES)
    message = f"params.yaml: second.{key}: a text or a number is expected (got {value}), which dvc.yaml names as a path"
    with pytest.raises(ProjectError, match="^" + re.escape(message)):
        read_graph(write(tmp_path, TEMPLATED.replace("second.reads", f"second.{key}")))


def test_templates_without_params(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"params\.yaml: no such file .* gr2 run --profile default"):
        read_graph(write(tmp_path, TEMPLATED))


def test_a_templated_dep_in_dvc_itself(tmp_path: Path) -> None:
    """DVC resolves it to the same graph, takes a dep that is named twice, and asks the stage again when the value changes."""
    root = dvc_toy.make(tmp_path / "toy", dvc_toy.PARAMS + "  reads: data/b/out.txt\n")
    text = (root / "dvc.yaml").read_text().replace("data/c/out.txt]", 'data/c/out.txt, "${d.reads}"]')
    (root / "dvc.yaml").write_text(text)
    dvc_toy.dvc(root, "repro", "-q")
    assert make_plan(root, read_graph(root))["d"].current
    dvc_toy.set_param(root, "reads: data/b/out.txt", "reads: data/a/out.txt")
    assert "a" in read_graph(root).upstream("d")
    causes = [str(cause) for cause in make_plan(root, read_graph(root))["d"].causes]
    assert causes == ["data data/a/out.txt is new among its deps", "d.reads: data/b/out.txt -> data/a/out.txt"]
    dvc_toy.dvc(root, "repro", "-q", "-s", "d")
    assert make_plan(root, read_graph(root))["d"].current


FOREACH = """
stages:
  part:
    foreach: "${whole.parts}"
    do: {cmd: "run ${item}", deps: [code.py], outs: ["data/part/${item}"], params: [whole.parts]}
  whole: {cmd: run whole, deps: ["${whole.reads}"], outs: [data/whole]}
"""


def test_foreach_is_a_stage_an_item(tmp_path: Path) -> None:
    write(tmp_path, FOREACH)
    (tmp_path / "params.yaml").write_text("whole: {parts: [0, 1], reads: data/part}\nresources: {part: {gpus: 1}}\n")
    graph = read_graph(tmp_path)
    assert graph.order == ["part@0", "part@1", "whole"] and graph.upstream("whole") == ["part@0", "part@1"]
    assert (graph["part@1"].cmd, graph["part@1"].outs, graph["part@1"].gpus) == ("run 1", ("data/part/1",), 1)
    assert graph.outs_of_dep("data/part") == ["data/part/0", "data/part/1"] and not graph.outs_of_dep("code.py")
    check_sections(tmp_path, graph)
    (tmp_path / "params.yaml").write_text("whole: {parts: [], reads: code.py}\nresources: {part: {gpus: 1}}\n")
    graph = read_graph(tmp_path)
    assert graph.order == ["whole"]
    check_sections(tmp_path, graph)  # resources of none are no mistake
    with pytest.raises(ProjectError, match=re.escape("resources.parts: there is no such stage; did you mean 'part'?")):
        check_sections(tmp_path, graph, "resources: {parts: {gpus: 1}}")
    for parts in ("3", "{a: 1}", "[true]"):
        with pytest.raises(ProjectError, match=re.escape("params.yaml: whole.parts: a list of numbers or names is expected, as [0, 1, 2]")):
            read_graph(tmp_path, f"whole: {{parts: {parts}, reads: code.py}}")


def test_other_shards_are_dropped_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, FOREACH)
    (tmp_path / "params.yaml").write_text("whole: {parts: [0, 1], reads: data/part}\n")
    for path in ("data/part/0/x", "data/part/1/x", "data/part/2/x", "data/whole/x", "data/else/x"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    drop_other_shards(tmp_path, read_graph(tmp_path))
    left = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "data").rglob("x"))
    assert left == ["data/else/x", "data/part/0/x", "data/part/1/x", "data/whole/x"]


def test_a_placement_names_one_shard_or_all_of_them() -> None:
    shards, one = Rule("nodes", stages=("part",)), Rule("nodes", stages=("part@1",))
    fitting = [(shards.fits(stage), one.fits(stage)) for stage in (Stage("part@0", "x"), Stage("part@1", "x"), Stage("whole", "x"))]
    assert fitting == [(True, False), (True, True), (False, False)]
