"""`gr2 lineage --verify` on runs of a thousand shards: seconds and peak memory.

    python bench/verify.py [--shards 1000] [--size 100000]

Two projects, each with git, DVC, a recorded run and a commit: one whose stage writes a folder of shards, one whose stage has every
shard as a separate output. The command runs as its own process, as a person starts it, and counts what it reads.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench/results/verify.md"
STAGE = """\
import json, pathlib, random, sys
shards, size = int(sys.argv[1]), int(sys.argv[2])
folder = pathlib.Path("data/shards")
folder.mkdir(parents=True, exist_ok=True)
draw = random.Random(7)
for number in range(shards):
    (folder / f"{number:05}.bin").write_bytes(draw.randbytes(size))
pathlib.Path("data/metrics.json").write_text(json.dumps({"shards": shards}))
"""
RECORD = """\
from pathlib import Path
import subprocess, sys
from tasks.ledger.run_context import run_context
from tasks.ledger.events import StageRun, close_run
from tasks.project.graph import read_graph
root = Path.cwd()
context = run_context(root)
run = StageRun(root, read_graph(root)["shards"], context)
run.start()
subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], check=True)
run.complete()
close_run(root, context, "Completed", ["shards"])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="gr2 lineage --verify on a thousand shards")
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--size", type=int, default=100_000, help="bytes a shard")
    args = parser.parse_args()
    lines = [
        "| | seconds | peak memory, MB | files read | cache objects read | problems | one byte forged |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, many in (("a folder of shards", False), ("every shard an output", True)):
        folder = project(args.shards, args.size, many)
        seconds, peak, verdict = verify(folder)
        shard = folder / f"data/shards/{args.shards // 2:05}.bin"
        shard.chmod(0o644)
        shard.write_bytes(b"!" + shard.read_bytes()[1:])
        named = [problem["file"] for problem in verify(folder)[2]["problems"] if problem["kind"] == "data"]
        checked = verdict["checked"]
        counts = (
            f"{checked['files']:,} | {checked['cache_objects']:,} | {len(verdict['problems'])} | {', '.join(f'`{one}`' for one in named)}"
        )
        lines.append(f"| {name} | {seconds:.1f} | {peak:,.0f} | {counts} |")
        shutil.rmtree(folder)
    about = [
        f"`python bench/verify.py --shards {args.shards} --size {args.size}` on {os.cpu_count()} cores, one run each:",
        f"{args.shards:,} shards of {args.size:,} bytes, `gr2 lineage --verify --json` as its own process. The last column: the file",
        "named after one byte was changed.",
    ]
    text = "\n".join(["# Verifying a run of many shards", "", *about, "", *lines, ""])
    print(text)
    RESULT.write_text(text, encoding="utf-8")


def project(shards: int, size: int, many: bool) -> Path:
    """A run on record, committed."""
    folder = Path(mkdtemp(prefix="verify-"))
    outs = [f"data/shards/{number:05}.bin" for number in range(shards)] if many else ["data/shards"]
    listed = "".join(f"      - {out}\n" for out in outs)
    (folder / "shards.py").write_text(STAGE, encoding="utf-8")
    entry = f"    cmd: python shards.py {shards} {size}\n    deps: [shards.py]\n    outs:\n{listed}    metrics: [data/metrics.json]\n"
    (folder / "dvc.yaml").write_text(f"stages:\n  shards:\n{entry}", encoding="utf-8")
    (folder / ".gitignore").write_text("/data/\n/.gr2/\n", encoding="utf-8")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"], ["git", "add", "-A"], commit("start")):
        subprocess.run(command, cwd=folder, env=environment(), check=True)
    subprocess.run([sys.executable, "-c", RECORD], cwd=folder, env=environment(), check=True)
    for command in (["git", "add", "-A"], commit("ran")):
        subprocess.run(command, cwd=folder, env=environment(), check=True)
    return folder


def verify(folder: Path) -> tuple[float, float, dict[str, Any]]:
    """Wall seconds, the most memory (MB) that the process held, its verdict."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "flows.cli", "lineage", "--verify", "--json"]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE)
    assert process.stdout
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - began, usage.ru_maxrss / 1024, json.loads(answer)


def commit(message: str) -> list[str]:
    return ["git", "-c", "user.name=bench", "-c", "user.email=bench@example.org", "commit", "-q", "-m", message]


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}


if __name__ == "__main__":
    main()
