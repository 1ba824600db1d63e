"""A project for tests of schedules: fetch copies raw.txt, which is the publisher's file and unknown to DVC; ingest reads the
copy, sft makes a model of it, evaluate judges that. The stages and compare_runs keep the contracts of the real ones.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support import dvc_toy
from tests.support.prefect_server import ask, end_group, wait_for, without_prefect

FETCH = """\
import pathlib, shutil
pathlib.Path("data/raw").mkdir(parents=True, exist_ok=True)
shutil.copy("raw.txt", "data/raw")
"""
INGEST = """\
import pathlib, shutil
pathlib.Path("data/ingest").mkdir(parents=True, exist_ok=True)
shutil.copy("data/raw/raw.txt", "data/ingest/table.txt")
"""
SFT = """\
import json, os, pathlib, time, yaml
params = yaml.safe_load(open("params.yaml"))["sft"]
pathlib.Path("at_work").write_text(str(os.getpid()))
leaked = sorted(name for name in os.environ if name.startswith("PREFECT_"))
pathlib.Path("leaked.json").write_text(json.dumps(leaked))
time.sleep(params["sleep"])
folder = pathlib.Path("data/sft/model"); folder.mkdir(parents=True, exist_ok=True)
(folder / "weights.txt").write_text(pathlib.Path("data/ingest/table.txt").read_text() + str(params["x"]))
"""
EVALUATE = """\
import pathlib
score = pathlib.Path("data/sft/model/weights.txt").read_text().count("good")
folder = pathlib.Path("data/evaluate"); folder.mkdir(parents=True, exist_ok=True)
(folder / "outputs.parquet").write_text(f"{score} " + pathlib.Path("data/sft/model/weights.txt").read_text())
"""
COMPARE = """\
import json, pathlib, sys
old, new = [float(pathlib.Path(word).read_text().split()[0]) for word in sys.argv[sys.argv.index("--") + 1 :]]
pair = {"a": "last", "b": "new", "model": "rl", "metric": "ndcg@5", "diff": new - old, "low": new - old - 0.5, "high": new - old + 0.5,
        "paired": True, "n": 10}
print(json.dumps({"pairs": [pair]}))
"""
STAGES = {
    "fetch": (FETCH, [], ["data/raw"]),
    "ingest": (INGEST, ["data/raw"], ["data/ingest/table.txt"]),
    "sft": (SFT, ["data/ingest/table.txt"], ["data/sft/model"]),
    "evaluate": (EVALUATE, ["data/sft/model"], ["data/evaluate/outputs.parquet"]),
}


def make(folder: Path) -> Path:
    entries = []
    (folder / "stages").mkdir(parents=True)
    (folder / "stages" / "__init__.py").touch()
    for name, (code, deps, outs) in STAGES.items():
        package = folder / "stages" / name
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(code)
        inputs = ", ".join([f"stages/{name}/__main__.py", *deps])
        entries.append(
            f"  {name}:\n    cmd: python -m stages.{name}\n    params: [{name}]\n    deps: [{inputs}]\n    outs: {json.dumps(outs)}\n"
        )
    (folder / "stages/tools").mkdir()
    (folder / "stages/tools/compare_runs.py").write_text(COMPARE)
    (folder / "dvc.yaml").write_text("stages:\n" + "".join(entries))
    (folder / "params.yaml").write_text("fetch: {x: 1}\ningest: {x: 1}\nsft:\n  x: 1\n  sleep: 0\nevaluate: {x: 1}\n")
    (folder / "raw.txt").write_text("good\n")
    (folder / ".gitignore").write_text("/data/*/\n/.gr2/\n/raw.txt\n/at_work\n/leaked.json\n__pycache__/\n")
    return dvc_toy.start(folder)


@contextmanager
def worker(root: Path, server: str) -> Iterator[subprocess.Popen[bytes]]:
    """`gr2 worker`, which asks for due runs every second."""
    env = {**without_prefect(), "PYTHONPATH": str(dvc_toy.ROOT), "PREFECT_API_URL": server, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    command = [sys.executable, "-m", "flows.cli", "worker"]
    (root / ".gr2").mkdir(exist_ok=True)
    with (root / ".gr2" / "worker.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        end_group(process)


def due(server: str, name: str, seconds: float = 0) -> str:
    """A run of the schedule `name`, due that many seconds from now (in the past: negative); its id."""
    deployments = [entry for entry in ask(server, "deployments/filter", {}) if entry["parameters"].get("schedule") == name]
    time = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": time}}
    return str(ask(server, f"deployments/{deployments[0]['id']}/create_flow_run", {"state": state})["id"])


def state(server: str, run: str) -> tuple[str, str]:
    """(type, name)"""
    state = ask(server, f"flow_runs/{run}")["state"]
    return state["type"], state["name"]


def ended(server: str, *runs: str) -> list[str]:
    """Waits until they are over; the names of their states."""
    final = ("COMPLETED", "CANCELLED", "FAILED", "CRASHED")
    wait_for(lambda: all(state(server, run)[0] in final for run in runs))
    return [state(server, run)[1] for run in runs]


def records(root: Path) -> dict[str, dict[str, Any]]:
    """By flow run, as the files say."""
    documents = [json.loads(path.read_text()) for path in sorted((root / ".gr2" / "records").glob("*.json"))]
    return {record["flow_run"]: record for record in documents}


def cancel(server: str, run: str) -> None:
    """As the button in Prefect's interface does it."""
    ask(server, f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
