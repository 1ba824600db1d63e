"""A stage in shards (`foreach` in dvc.yaml) on two workers: each is placed and cached by itself, and one that fails is made again alone."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tasks.dvc.lockfile import read_lock
from tests.support import dvc_toy, node_farm, postgres
from tests.support.node_farm import Farm

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SHARDS = """
  b_shard:
    foreach: "${b.shards}"
    do:
      cmd: python -m stages.b.shard ${item}
      params: [b.shards]
      deps: [stages/b, stages/__init__.py, data/a/out.txt]
      outs: ["data/b_shard/${item}"]
"""
SHARD = """
import pathlib, sys, time
import stages.b.words
notes, shard = pathlib.Path({notes!r}), sys.argv[1]
with (notes / "calls").open("a") as calls:
    calls.write(shard + " " + str(pathlib.Path.cwd()) + chr(10))
if shard == "1" and (notes / "broken").exists():
    sys.exit("b_shard@1: broken on purpose")
time.sleep(3)
folder = pathlib.Path("data/b_shard", shard)
folder.mkdir(parents=True, exist_ok=True)
(folder / "out.txt").write_text(pathlib.Path("data/a/out.txt").read_text() + shard)
"""


def make(folder: Path, notes: Path) -> Path:
    """The diamond, whose b reads three shards of its own."""
    root = dvc_toy.make(folder, dvc_toy.PARAMS.replace("b:\n  x: 1\n", "b:\n  x: 1\n  shards: [0, 1, 2]\n  reads: data/b_shard\n"))
    (root / "stages/b/shard.py").write_text(SHARD.format(notes=str(notes)))
    main = root / "stages/b/__main__.py"
    main.write_text(main.read_text().replace("['data/a/out.txt']", "sorted(map(str, pathlib.Path('data/b_shard').glob('*/out.txt')))"))
    text = (
        (root / "dvc.yaml")
        .read_text()
        .replace("stages/b, stages/__init__.py, data/a/out.txt", 'stages/b, stages/__init__.py, "${b.reads}"')
    )
    (root / "dvc.yaml").write_text(text + SHARDS)
    dvc_toy.commit(root, "b in shards")
    return root


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, server: str) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("sharded")
    (folder / "notes").mkdir()
    with ExitStack() as held:
        home = make(folder / "home", folder / "notes")
        pools, rules = {"shards": {"type": "process"}}, [{"stages": ["b_shard", "b"], "pool": "shards"}]  # a runs here, c and d not at all
        # With SQLite the shared server would stop answering now and then under the workers (docs/schedules.md), and others use it too.
        shared = server if postgres.installed() else ""
        made = held.enter_context(node_farm.farm(folder, home, server=shared, pools=pools, rules=rules))
        for name in ("one", "two"):
            held.enter_context(made.worker(made.clone(name), "shards", limit=1))
        yield made.ready()


def calls(farm: Farm) -> list[list[str]]:
    """[shard, the checkout of its node] of each call, in order of time."""
    lines = (farm.folder / "notes/calls").read_text().splitlines()
    return [[shard, Path(root).relative_to(farm.folder).parts[0]] for shard, root in map(str.split, lines)]


def test_shards_go_to_both_workers_and_a_lost_one_alone_is_made_again(farm: Farm) -> None:
    (farm.folder / "notes/broken").touch()
    failed = farm.run("run", "b", "--placement", "farm", ok=False)
    assert failed.returncode != 0 and "b_shard@1: broken on purpose" in failed.stdout + failed.stderr
    first = calls(farm)
    assert sorted(shard for shard, _ in first) == ["0", "1", "2"] and {node for _, node in first} == {"one", "two"}
    (farm.folder / "notes/broken").unlink()
    states = dvc_toy.states(farm.run("run", "b", "--placement", "farm"))
    assert [shard for shard, _ in calls(farm)[3:]] == ["1"]
    assert {name: states[name] for name in ("b_shard@0", "b_shard@1", "b_shard@2", "b")} == {
        "b_shard@0": "Cached",
        "b_shard@1": "Completed",
        "b_shard@2": "Cached",
        "b": "Completed",
    }
    # A third checkout without a placement restores all of it, and plain DVC finds it current.
    third = farm.clone("third")
    assert set(dvc_toy.states(farm.run("run", "b", root=third)).values()) == {"Cached"}
    assert read_lock(third) == read_lock(farm.home) and len(calls(farm)) == 4
    assert "b_shard@1" in read_lock(third)


def test_fewer_shards_leave_nothing_of_the_others(tmp_path: Path, server: str) -> None:
    """In one checkout, without nodes: plain DVC gives the same lock in a fresh one."""
    notes = tmp_path / "notes"
    notes.mkdir()
    roots = [make(tmp_path / name, notes) for name in ("home", "fresh")]
    dvc_toy.gr2(roots[0], "run", PREFECT_API_URL=server)
    for root in roots:
        dvc_toy.set_param(root, "[0, 1, 2]", "[0, 1]")
    dvc_toy.gr2(roots[0], "run", PREFECT_API_URL=server)
    dvc_toy.dvc(roots[1], "repro")
    assert sorted(path.name for path in (roots[0] / "data/b_shard").iterdir()) == ["0", "1"]
    locks = [{name: entry for name, entry in read_lock(root).items() if name != "b_shard@2"} for root in roots]
    assert locks[0] == locks[1]
