"""The projects that the fault campaign strikes: a diamond of quick stages, the same on nodes, and this project's twelve stages."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402 (after sys.path)
import yaml  # noqa: E402 (after sys.path)
from fault_watch import ABSENT, MARK, Content, content, processes  # noqa: E402 (after sys.path)

from tasks.dvc.lockfile import locked_hashes, read_lock  # noqa: E402 (after sys.path)
from tasks.project.graph import Graph, read_graph  # noqa: E402 (after sys.path)
from tests.support import dvc_toy, node_farm, prefect_server, project_clone  # noqa: E402 (after sys.path)

Good = dict[str, list[Content]]  # by output: old content, new content last
# Beyond the smoke profile: every stage does all that it does, on little data, so that a trial costs seconds.
LITTLE: dict[str, int | str] = {
    "ingest.min_interactions": 60,
    "ingest.min_item_interactions": 100,
    "ingest.keep_items": "interacted",
    "tokenize.epochs": 2,
    "tokenize.warmup_epochs": 1,
    "tokenize.uniqueness_gate": 0,
    "tokenize.usage_gate": 0,
    "retrieve.epochs": 1,
    "retrieve.folds": 2,
    "midtrain.steps": 2,
    "midtrain.hidden": 64,
    "midtrain.intermediate": 128,
    "midtrain.probe_users": 4,
    "traces.scorer.rounds": 3,
    "sft.steps": 2,
    "rl.steps": 1,
    "rl.max_tokens": 16,
    "quantize.calibration_prompts": 4,
    "evaluate.max_tokens": 16,
    "evaluate.max_slates": 6,
    "evaluate.free_slates": 2,
    "evaluate.shuffled_slates": 2,
    "evaluate.repeat_slates": 2,
    "report.resamples": 100,
}
REPEATS = 2000
STAGE = """\
import pathlib, time, yaml
from pydantic import BaseModel
from stages.{name}.words import WORDS
from stages.shared.core.outputs import stage_outputs
class Metrics(BaseModel):
    length: int
x = yaml.safe_load(open("params.yaml"))["{name}"]["x"]
text = "".join(pathlib.Path(path).read_text() for path in {inputs!r}) + f"{{WORDS}}{{x}}\\n"
with stage_outputs("{name}") as outputs:
    for name, count in (("out.txt", 1), ("model/weights.bin", {repeats}), ("model/words.txt", 3)):
        with outputs.path(name).open("w") as file:
            for part in range(4):
                file.write(text * (count // 4 + (part < count % 4)))
                file.flush()
                time.sleep(0.05)
    outputs.metrics({{"length": len(text)}}, Metrics)
"""


class Toy:
    """a -> b, c -> d, each about half a second; they publish as the real stages do. The contents are known without a run."""

    name = "toy"
    stages = tuple(dvc_toy.UPSTREAM)

    def __init__(self, folder: Path):
        self.base = folder / "base"
        if not (self.base / ".gr2" / "finished").exists():
            shutil.rmtree(self.base, ignore_errors=True)
            _make_toy(self.base)
            dvc_toy.gr2(self.base, "run")  # starts its own server, so that later runs find its database
            (self.base / ".gr2" / "finished").touch()

    def fresh(self, root: Path, stage: str, number: int, changed: bool = True) -> Good:
        """The finished project at `root`, with `stage` about to run if `changed`, else with its outputs to be restored."""
        shutil.copytree(self.base, root, symlinks=True)
        if not changed:
            shutil.rmtree(root / "data" / stage)
            return _toy_contents({})
        text = (root / "params.yaml").read_text()
        (root / "params.yaml").write_text(text.replace(f"{stage}:\n  x: 1", f"{stage}:\n  x: {1000 + number}", 1))
        old, new = _toy_contents({}), _toy_contents({stage: 1000 + number})
        return {out: [*old[out], *new[out]] for out in new}

    def run_words(self) -> list[str]:
        return ["run"]

    def env(self, root: Path, mark: str) -> dict[str, str]:
        return {**prefect_server.without_prefect(), "PYTHONPATH": str(ROOT), **_isolation(root, mark)}

    def marks(self, mark: str) -> tuple[str, ...]:
        """Of the processes that work for a trial."""
        return (mark,)

    def close(self) -> None:
        return


class Nodes(Toy):
    """The diamond on two nodes, with a Prefect server, an S3 service and a git origin; only the project is new in each trial."""

    name = "nodes"
    mark = "farm"

    def __init__(self, folder: Path):
        from moto import server

        self._held: Any = None
        shutil.rmtree(folder, ignore_errors=True)  # the S3 service keeps all in memory, so nothing outlives this process
        folder.mkdir(parents=True)
        os.environ[MARK] = self.mark
        self.base = _make_toy(folder / "base")
        server.ThreadedMotoServer, plain = Store, server.ThreadedMotoServer
        try:
            self._held = self._start(folder)
            self.farm: node_farm.Farm = self._held.__enter__()
        finally:
            server.ThreadedMotoServer = plain
        self.store = Store.last
        self.services = [process for process in processes(self.mark) if process.role in ("server", "worker")]
        self.again = {process.pid: (psutil.Process(process.pid).environ(), psutil.Process(process.pid).cwd()) for process in self.services}
        self.farm.run(*self.run_words())
        del os.environ[MARK]

    @contextmanager
    def _start(self, folder: Path) -> Iterator[node_farm.Farm]:
        with (
            node_farm.farm(folder, self.base) as farm,
            farm.worker(farm.clone("one")),
            farm.worker(farm.clone("two")),
        ):
            prefect_server.wait_for(lambda: sum(process.role == "worker" for process in processes(self.mark)) == 2)
            yield farm

    def run_words(self) -> list[str]:
        return ["run", "--placement", "farm"]

    def env(self, root: Path, mark: str) -> dict[str, str]:
        return {**super().env(root, mark), **self.farm.env}

    def marks(self, mark: str) -> tuple[str, ...]:
        return (mark, self.mark)

    def revive(self) -> None:
        """Restarts the server and the workers that have died, with their old command and environment."""
        for service in [service for service in self.services if not _lives(service.pid)]:
            env, cwd = self.again[service.pid]
            with (self.base.parent / "revived.log").open("ab") as log:
                started = subprocess.Popen(
                    service.words, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            self.services.remove(service)
            self.services.append(type(service)(started.pid, service.words))
            self.again[started.pid] = (env, cwd)

    def close(self) -> None:
        for process in processes(self.mark):
            if process.pid != os.getpid():
                psutil.Process(process.pid).kill()
        self._held.__exit__(None, None, None)


class Smoke:
    """The twelve stages under the smoke profile and LITTLE, in a clone.

    A stage is made to run by dropping all that is known of its last run.
    """

    name = "smoke"
    stages = project_clone.STAGES

    def __init__(self, folder: Path):
        self.base = folder / "base"
        if not (self.base / ".gr2" / "finished").exists():
            shutil.rmtree(self.base, ignore_errors=True)
            project_clone.clone(self.base)
            project_clone.gr2(self.base, "run", "--profile", "smoke", "fetch")
            project_clone.gr2(self.base, "run", *(word for key, value in LITTLE.items() for word in ("--set", f"{key}={value}")))
            (self.base / ".gr2" / "finished").touch()
        self.graph = read_graph(self.base)
        self.outs = {out: [_stable(self.base / out)] for out in outputs(self.graph)}

    def fresh(self, root: Path, stage: str, number: int, changed: bool = True) -> Good:
        shutil.copytree(self.base, root, symlinks=True)
        for out in self.graph.stages[stage].outs:
            shutil.rmtree(root / out) if (root / out).is_dir() else (root / out).unlink()
        if changed:
            from dvc.utils.serialize import dumps_yaml

            lock = read_lock(root)
            stage_outputs = locked_hashes(lock.pop(stage)["outs"])
            (root / "dvc.lock").write_text(dumps_yaml({"schema": "2.0", "stages": lock}))
            shutil.rmtree(root / ".dvc" / "cache" / "runs")
            kept = {entry["hash"] for other in lock.values() for entry in locked_hashes(other["outs"]).values()}
            for md5 in {entry["hash"] for entry in stage_outputs.values()} - kept:
                (root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink(missing_ok=True)
        return self.outs

    def run_words(self) -> list[str]:
        return ["run"]

    def env(self, root: Path, mark: str) -> dict[str, str]:
        return {**project_clone.environment(root), "OMP_NUM_THREADS": "1", **_isolation(root, mark)}

    marks = Toy.marks
    close = Toy.close


PROJECTS: dict[str, Any] = {"toy": Toy, "nodes": Nodes, "smoke": Smoke}


def outputs(graph: Graph) -> list[str]:
    return [out for stage in graph.stages.values() for out in stage.outs]


def _lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def _isolation(root: Path, mark: str) -> dict[str, str]:
    """What DVC keeps outside a project, kept on the project's own disk."""
    return {MARK: mark, "DVC_SITE_CACHE_DIR": str(root / ".gr2" / "site"), "DVC_GLOBAL_CONFIG_DIR": str(root / ".gr2" / "site")}


def _stable(path: Path) -> Content:
    files = content(path)
    assert files, path
    return files


def _make_toy(folder: Path) -> Path:
    """tests/support/dvc_toy.py's diamond with stages that take a moment and use the real stages' way to publish."""
    dvc_toy.make(folder)
    (folder / "stages/shared/core").mkdir(parents=True)
    for name in ("__init__.py", "core/__init__.py", "core/errors.py", "core/outputs.py"):
        shutil.copy2(ROOT / "stages/shared" / name, folder / "stages/shared" / name)
    for name, upstream in dvc_toy.UPSTREAM.items():
        inputs = [f"data/{other}/out.txt" for other in upstream]
        (folder / f"stages/{name}/__main__.py").write_text(STAGE.format(name=name, inputs=inputs, repeats=REPEATS))
    graph = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))
    for stage in graph["stages"].values():
        stage["deps"] = [*stage.get("deps", []), "stages/shared/core"]  # code that a stage imports and does not list stops a run
    (folder / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
    dvc_toy.commit(folder, "stages that publish as the real ones")
    return folder


def _toy_contents(x: dict[str, int]) -> Good:
    """What every output holds when the parameters `x` have these values and all others 1, worked out without the project."""
    texts: dict[str, str] = {}
    contents: Good = {}
    for name, upstream in dvc_toy.UPSTREAM.items():
        text = texts[name] = "".join(texts[other] for other in upstream) + f"{name}{x.get(name, 1)}\n"
        metrics = json.dumps({"length": len(text)}, indent=2) + "\n"
        contents[f"data/{name}/out.txt"] = [{ABSENT: _md5(text)}]
        contents[f"data/{name}/model"] = [{"weights.bin": _md5(text * REPEATS), "words.txt": _md5(text * 3)}]
        contents[f"data/{name}/metrics.json"] = [{ABSENT: _md5(metrics)}]
    return contents


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _store_class() -> Any:
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, ThreadedMotoServer, create_backend_app
    from werkzeug.serving import make_server

    class CuttingStore(ThreadedMotoServer):
        """An S3 service that can lose the second half of an upload and report success."""

        last: "CuttingStore"

        def __init__(self, *words: Any, **named: Any):
            super().__init__(*words, **named)
            logging.getLogger("werkzeug").setLevel(logging.WARNING)  # else it prints a line per request
            self.cut_in, self.cut = 0, ""  # counts down the uploads until the one to cut; the key of the one cut
            type(self).last = self

        def _server_entry(self) -> None:
            plain = DomainDispatcherApplication(create_backend_app)

            def app(environ: dict[str, Any], start_response: Any) -> Any:
                answer = list(plain(environ, start_response))
                if environ["REQUEST_METHOD"] == "PUT" and "/dvc/files/" in environ["PATH_INFO"]:
                    self.cut_in -= 1
                    if self.cut_in == 0:
                        self.cut = self._halve(environ["PATH_INFO"])
                return answer

            self._server = make_server(self._ip_address, self._port, app, True, request_handler=MotoRequestHandler)
            self._server_ready_event.set()
            self._server.serve_forever()

        def _halve(self, path: str) -> str:
            from moto.s3.models import s3_backends

            bucket, key = path.strip("/").split("/", 1)
            backend = s3_backends["123456789012"]["aws"]
            body = backend.get_object(bucket, key).value  # type: ignore[union-attr]
            backend.put_object(bucket, key, body[: len(body) // 2])
            return key

    return CuttingStore


Store: Any = _store_class()
