"""The pilot job of Slurm as processes, with a stand-in for srun and for the worker."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SRUN = """#!/bin/bash
# Stands for srun: the command on two nodes, signals passed on.
while [[ $1 == --* ]]; do shift; done
for node in 0 1; do TMPDIR=$NODES/$node home=$NODES/$node/${home##*/} "$@" & pids+=($!); done
trap 'kill -TERM "${pids[@]}"' TERM
for pid in "${pids[@]}"; do until wait "$pid"; [[ $? -le 128 ]]; do :; done; done
"""
GR2 = """#!/bin/bash
trap 'echo ended > ended; cp ended "$shared/ended-$(basename "$(dirname "$PWD")")"; exit 0' TERM
echo "$* $GR2_NODE_HOME" > "$shared/begun-$(basename "$(dirname "$PWD")")"
while true; do sleep 0.1; done
"""


def test_the_slurm_job_ends_its_workers_in_good_order(tmp_path):
    shared, nodes = tmp_path / "shared", tmp_path / "nodes"
    for name, text in {"srun": SRUN, "gr2": GR2}.items():
        script = shared / ".venv/bin" / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(text)
        script.chmod(0o755)
    for node in (0, 1):
        (nodes / str(node)).mkdir(parents=True)
    (shared / ".dvc").mkdir()
    (shared / ".dvc/config").write_text("[core]\n    analytics = false\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (
        ["init", "-q"],
        ["remote", "add", "origin", "https://git.example.org/gr2.git"],
        ["add", ".dvc"],
        [*identity, "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *words], cwd=shared, check=True)
    (shared / ".dvc/config.local").write_text("[cache]\n    dir = /scratch/cache\n")
    env = {**os.environ, "PREFECT_API_URL": "http://x/api", "SLURM_SUBMIT_DIR": str(shared), "SLURM_JOB_ID": "42", "NODES": str(nodes)}
    job = subprocess.Popen(
        ["bash", str(ROOT / "infra/slurm/worker.sbatch"), "pool-a", "place-b", "--limit", "1"], env=env, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: all((shared / f"begun-{node}").exists() and (shared / f"begun-{node}").read_text() for node in (0, 1)), job)
        for node in (0, 1):
            home = nodes / str(node) / "gr2-42"
            assert (shared / f"begun-{node}").read_text() == f"worker pool-a --placement place-b --limit 1 {home}\n"
            origin = subprocess.run(["git", "remote", "get-url", "origin"], cwd=home, capture_output=True, text=True, check=True)
            assert origin.stdout.strip() == "https://git.example.org/gr2.git", "not the shared checkout: nodes fetch the run's code from it"
            assert (home / ".dvc/config.local").read_text() == (shared / ".dvc/config.local").read_text()
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=900) == 0
    finally:
        job.kill()
    assert all((shared / f"ended-{node}").exists() and not (nodes / str(node) / "gr2-42").exists() for node in (0, 1))


def test_the_slurm_job_refuses_to_start_without_a_server(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        ["bash", str(ROOT / "infra/slurm/worker.sbatch")], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode and "PREFECT_API_URL" in done.stderr


def wait_for(condition: Any, process: subprocess.Popen[str]) -> None:
    for _ in range(20 * 600):
        if condition():
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("not within 600 s")
