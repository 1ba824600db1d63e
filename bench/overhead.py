"""What orchestration costs: a run that has nothing to do, and ten made-up stages side by side.

    python bench/overhead.py noop --project FOLDER      # a checkout in which `gr2 run` has finished
    python bench/overhead.py shards                     # makes its own project of ten equal stages

Each prints a table and writes it to bench/results/overhead_<part>.md. Run it on an otherwise idle machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
EMPTY_FLOW = """\
import os
from pathlib import Path
from flows.server.settings import prepare, start_server
prepare(Path.cwd())
server = start_server(Path.cwd())
from prefect import flow
server.wait_until_ready()
@flow
def empty():
    pass
empty()
"""
SHARD = """\
import pathlib, sys, time
began = time.process_time()
while time.process_time() - began < {seconds}:
    sum(number * number for number in range(10_000))
pathlib.Path("out").mkdir(exist_ok=True)
pathlib.Path("out/" + sys.argv[1]).write_text(sys.argv[1])
pathlib.Path("spans").mkdir(exist_ok=True)
pathlib.Path("spans/" + sys.argv[1]).write_text(str(time.time()))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["noop", "shards"])
    parser.add_argument("--project", type=Path, help="noop: a checkout in which everything is current")
    parser.add_argument("--times", type=int, default=7, help="noop: how often each is timed, in turn")
    parser.add_argument("--seconds", type=float, default=20.0, help="shards: CPU time of a stage")
    options = parser.parse_args()
    if options.part == "noop" and not options.project:
        parser.error("noop needs --project FOLDER")
    text = noop(options.project.resolve(), options.times) if options.part == "noop" else shards(options.seconds)
    command = f"python bench/overhead.py {options.part}" + (
        " --project FOLDER" if options.part == "noop" else f" --seconds {options.seconds:g}"
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"overhead_{options.part}.md").write_text(f"`{command}`\n\n{text}\n", encoding="utf-8")
    print(text)


def noop(project: Path, times: int) -> str:
    """Wall seconds of a run that finds everything current, and those of its two parts alone."""
    commands = {
        "gr2 run": ["-m", "flows.cli", "run"],
        "dvc repro": ["-m", "dvc", "repro", "--quiet"],
        "Prefect's empty flow, with its own server": ["-c", EMPTY_FLOW],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(times + 1):
        for name, words in commands.items():
            began = time.perf_counter()
            call(project, *words)
            taken[name].append(time.perf_counter() - began)
    taken = {name: values[1:] for name, values in taken.items()}  # the first warms the disk cache
    whole, repro, empty = taken.values()
    taken["overhead: the first minus the other two"] = [one - two - three for one, two, three in zip(whole, repro, empty, strict=True)]
    rows = [f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |" for name, values in taken.items()]
    return "\n".join([f"n = {times}, timed in turn, seconds", "", "| | median | min | max |", "|---|---|---|---|", *rows])


def shards(seconds: float) -> str:
    """How busy the cores are while ten independent one-core stages run side by side."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        make_shards(project, seconds)
        samples = []
        child = subprocess.Popen([sys.executable, "-m", "flows.cli", "run"], cwd=project, env=environment(), stdout=subprocess.DEVNULL)
        psutil.cpu_percent()
        began = None
        while child.poll() is None:
            time.sleep(0.5)
            samples.append((time.time(), psutil.cpu_percent()))
            if began is None and burning(project):
                began = time.time()
        assert child.returncode == 0
        ends = sorted(float(path.read_text()) for path in (project / "spans").iterdir())
    assert began is not None
    # While at least as many stages are left as there are cores: after that a core is idle under any scheduler.
    full = [busy for when, busy in samples if began <= when <= ends[-cores()]]
    whole = [busy for when, busy in samples if began <= when <= ends[-1]]
    rows = [
        f"| while a stage was left for every core | {ends[-cores()] - began:.0f} | {statistics.mean(full):.1f} |",
        f"| first stage's start to last stage's end | {ends[-1] - began:.0f} | {statistics.mean(whole):.1f} |",
    ]
    head = f"ten stages of {seconds:g} s of CPU time each, one core each, on {cores()} cores; all processes of the machine counted"
    return "\n".join([head, "", "| window | seconds | cores busy, % |", "|---|---|---|", *rows])


def make_shards(project: Path, seconds: float) -> None:
    (project / "shard.py").write_text(SHARD.format(seconds=seconds))
    stages = "".join(f"  shard{n}:\n    cmd: python shard.py {n}\n    deps: [shard.py]\n    outs: [out/{n}]\n" for n in range(10))
    (project / "dvc.yaml").write_text(f"stages:\n{stages}")
    (project / ".gitignore").write_text("/.gr2/\n/spans/\n")
    for words in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(words, cwd=project, check=True)
    commit = ["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-q", "-m", "start"]
    subprocess.run(["git", "add", "-A"], cwd=project, check=True)
    subprocess.run(commit, cwd=project, check=True)


def burning(project: Path) -> bool:
    return any((process.info["cmdline"] or [])[1:2] == ["shard.py"] for process in psutil.process_iter(["cmdline"]))


def cores() -> int:
    return len(os.sched_getaffinity(0))


def call(project: Path, *words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=project, env=environment(), check=True, capture_output=True)


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


if __name__ == "__main__":
    main()
