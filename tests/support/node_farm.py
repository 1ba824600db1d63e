"""Nodes for tests: an S3 service and a Prefect server on loopback, a bare git origin, and workers, each in its checkout."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.support import dvc_toy, prefect_server

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "not-so-secret", "AWS_DEFAULT_REGION": "us-east-1"}
# Every query costs the server: with four workers that asked twice a second it took 6 % of a core while they waited.
QUICK = {"PREFECT_WORKER_QUERY_SECONDS": "2", "PREFECT_WORKER_HEARTBEAT_SECONDS": "2", "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1"}


@dataclass
class Farm:
    """`home`: the orchestrator's checkout; `env` of everybody."""

    folder: Path
    home: Path
    url: str
    s3: str
    env: dict[str, str]
    database: str = ""
    workers: dict[Path, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def store(self) -> Any:
        """A client of the S3 service."""
        import boto3

        key, secret, region = CREDENTIALS.values()
        return boto3.client("s3", endpoint_url=self.s3, region_name=region, aws_access_key_id=key, aws_secret_access_key=secret)

    def clone(self, name: str) -> Path:
        """A checkout of the origin as a person makes one."""
        root = self.folder / name
        dvc_toy.call(self.folder, "git", "clone", "--quiet", str(self.folder / "origin.git"), str(root))
        return root

    def run(self, *words: str, root: Path | None = None, ok: bool = True) -> "subprocess.CompletedProcess[str]":
        """gr2 with `words`, by default in the orchestrator's checkout. A run on nodes takes its time: mind pytest's own limit."""
        return dvc_toy.gr2(root or self.home, *words, ok=ok, **self.env)

    @contextmanager
    def worker(self, root: Path, pool: str = "nodes", limit: int = 0, **env: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A worker of `pool` in the checkout `root`, in a new session, so that its whole process group can be ended."""
        full_env = {
            **prefect_server.without_prefect(),
            **self.env,
            **QUICK,
            "PYTHONPATH": str(dvc_toy.ROOT),
            "GR2_GPU_LOCKS": str(self.folder / "gpus"),
            **env,
        }
        command = [sys.executable, "-m", "flows.cli", "worker", pool, "--placement", "farm", *(["--limit", str(limit)] if limit else [])]
        with (root.parent / f"{root.name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=root, env=full_env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.workers[root] = process
        try:
            yield process
        finally:
            prefect_server.end_group(process)

    def ready(self) -> "Farm":
        """Waits until every worker serves its pool; AssertionError with the log of one that ends instead."""
        for root, process in self.workers.items():
            log = root.parent / f"{root.name}.log"
            prefect_server.wait_for(partial(_serves_or_ended, process, log))
            assert process.poll() is None, log.read_text()
        return self


def _serves_or_ended(process: "subprocess.Popen[bytes]", log: Path) -> bool:
    return process.poll() is not None or "started!" in log.read_text()


@contextmanager
def farm(folder: Path, project: Path, database: dict[str, str] | None = None, server: str = "", **placement: object) -> Iterator[Farm]:
    """`project`, a checkout with everything committed, gets an origin, a remote and a placement `farm` with one pool `nodes`.

    `server`: of Prefect, on which nobody else serves a pool of that name; empty: one of its own. `database`: its settings for another one
    than SQLite.
    """
    from moto.server import ThreadedMotoServer

    with ExitStack() as resources:
        s3 = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        s3.start()
        resources.callback(s3.stop)
        endpoint = f"http://127.0.0.1:{s3.get_host_and_port()[1]}"
        url = server or resources.enter_context(prefect_server.serve(folder / "prefect", **(database or {})))
        farm = Farm(folder, project, url, endpoint, {**CREDENTIALS, "PREFECT_API_URL": url}, *(database or {}).values())
        farm.store().create_bucket(Bucket="store")
        config = project / ".dvc/config"  # as `dvc remote add` and `modify` write it, in a hundredth of their time
        remote = f"['remote \"store\"']\n    url = s3://store/dvc\n    endpointurl = {endpoint}\n"
        config.write_text(config.read_text().replace("[core]\n", "[core]\n    remote = store\n") + remote)
        place(project, **placement)
        dvc_toy.call(folder, "git", "init", "--quiet", "--bare", "-b", "main", "origin.git")
        dvc_toy.call(project, "git", "remote", "add", "origin", str(folder / "origin.git"))
        dvc_toy.commit(project, "a remote and a placement")
        dvc_toy.call(project, "git", "push", "--quiet", "origin", "HEAD:main")
        yield farm


def place(project: Path, **placement: object) -> None:
    """Writes infra/placements/farm.yaml: every stage on the pool `nodes`; `placement` overrides keys of it."""
    values = {
        "git_remote": "origin",
        "lease_s": 20,
        "pending_s": 120,
        "retries": {"limit": 2, "first_s": 1},
        "pools": {"nodes": {"type": "process"}},
        "rules": [{"pool": "nodes"}],
        **placement,
    }
    (project / "infra/placements").mkdir(parents=True, exist_ok=True)
    (project / "infra/placements/farm.yaml").write_text(yaml.safe_dump(values))
