"""One stage on a node of a work pool: the flow that a Prefect worker starts there, in the node's own checkout.

Code comes from git, inputs from the DVC remote; outputs and DVC's record of the run go back to it.
"""

import os
import platform
import shlex
import socket
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows.nodes.heartbeat import Beat, beating
from flows.server.settings import without_prefect
from flows.server.signals import stopping
from tasks.dvc import remote
from tasks.dvc.remote import RemoteUnavailable
from tasks.dvc.repo import configure_cache
from tasks.nodes import slots, snapshot
from tasks.project.graph import Graph, Stage, read_graph
from tasks.run.retries import TransientError, is_transient
from tasks.run.stage import Callbacks, Runner, stage_environment
from tasks.system.errors import Interrupted, ProjectError, StageFailed
from tasks.system.hardware import hardware
from tasks.system.redaction import without_secrets

HOME, CACHE = "GR2_NODE_HOME", "GR2_NODE_CACHE"
SHORTEST_LEASE_S = 60.0  # that Prefect's server grants
TRANSIENT, STAGE_FAILED = "Passing", "StageFailed"  # names of the two ways to fail: the orchestrator tries again after the first


@flow(name="node", flow_run_name="{stage}", persist_result=False, validate_parameters=False)
def node(stage: str, order: dict[str, Any]) -> State[Any]:
    """Runs `stage`. `order`: ref and commit of the code, key of the run, gpus and the limit they count against, pool,
    lease_s, nodes, rank, address of node 0 (`host:port`, for ranks above 0)."""
    work = _Work(stage, order)
    with beating(str(flow_run.id), order["lease_s"] / 6, work.beat) as work.wake, stopping(work.stop):
        try:
            message = work.do()
        except Interrupted as error:
            # Cancelled by the orchestrator or a person, or only its worker stopped: then another node may take it over.
            return (
                Cancelled(message=str(error))
                if _cancelling()
                else Failed(name=TRANSIENT, message=f"{platform.node()}: its worker was stopped")
            )
        except StageFailed as error:
            return Failed(name=TRANSIENT if is_transient(str(error)) else STAGE_FAILED, message=str(error))
        except (RemoteUnavailable, TransientError) as error:
            return Failed(name=TRANSIENT, message=f"{platform.node()}: {error}")
        except (ProjectError, OSError) as error:
            return Failed(name=TRANSIENT if is_transient(str(error)) else STAGE_FAILED, message=f"{platform.node()}: {error}")
    return Completed(message=message)


class _Work:
    """One order, from the code to the push. `stop` may be called by a signal handler at any time."""

    def __init__(self, name: str, order: dict[str, Any]):
        self.name, self.order = name, order
        self.beat = Beat(facts={"host": platform.node(), "pool": order["pool"], "flow_run": str(flow_run.id), "hardware": hardware()})
        self.wake = threading.Event()
        self.halted = threading.Event()
        self.runner: Runner | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.log = get_run_logger()

    def stop(self) -> None:
        self.halted.set()
        if self.runner:
            self.runner.stop()
        if self.child:
            self.child.terminate()

    def do(self) -> str:
        order, home = self.order, Path(os.environ.get(HOME) or Path.cwd())
        with ExitStack() as held:
            gpus = int(order["gpus"])
            if gpus:
                # Strict: when the lease cannot be renewed, others may get the slots, so this stage has to end.
                lease_s = max(SHORTEST_LEASE_S, order["lease_s"])
                held.enter_context(concurrency(order["limit"], occupy=gpus, lease_duration=lease_s, strict=True))
            slot = held.enter_context(slots.acquire_slot(home))
            shown = held.enter_context(slots.acquire_gpus(gpus, self.halted.is_set))
            snapshot.check_out(slot.root, snapshot.origin_of(home), order["ref"], order["commit"])
            _configure_dvc(home, slot.root)
            graph = read_graph(slot.root)
            stage = graph[self.name]
            self._pull_inputs(slot.root, graph, stage)
            env = stage_environment({**without_prefect(), **slot.env, **shown, **self._meeting()})
            if order["rank"]:
                return self._follow(slot.root, stage, env)
            return self._lead(slot.root, stage, env)

    def _pull_inputs(self, root: Path, graph: Graph, stage: Stage) -> None:
        self._say("fetching its inputs")
        remote.pull(root, [dep for dep in stage.deps if graph.producer(dep)])
        if (key := remote.run_key(root, stage)) != self.order["key"]:
            raise ProjectError(
                f"its code, parameters or inputs are other ones here (run {key[:12]}) than at home ({self.order['key'][:12]})"
            )

    def _lead(self, root: Path, stage: Stage, env: dict[str, str]) -> str:
        """The node that makes the outputs: under DVC, as anywhere."""
        self.runner = Runner(root, Callbacks(line=self._line, progress=self._progress), env)
        if self.halted.is_set():
            raise Interrupted(stage.name, "stopped before it began")
        found = "" if self.order["force"] else remote.fetch(root, stage)
        finished = self.runner.run(stage, force=self.order["force"], checked=bool(found))
        self._say("sending its outputs")
        remote.push(root, stage)
        self.beat.outcome = {"ran": finished.ran, "seconds": finished.seconds}
        return f"ran for {finished.seconds:.1f} s" if finished.ran else "somebody had run it; restored"

    def _follow(self, root: Path, stage: Stage, env: dict[str, str]) -> str:
        """A further node of several: the same stage, which publishes nothing there (stages.shared.core.launch)."""
        command = shlex.split(stage.cmd)
        self.child = subprocess.Popen(
            command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.child.stdout
        tail = ""
        for line in self.child.stdout:
            tail = without_secrets(line.decode(errors="replace").strip()) or tail
            self._line(stage.name, tail)
        if code := self.child.wait():
            if self.halted.is_set():
                raise Interrupted(stage.name, "stopped")
            raise StageFailed(stage.name, f"{platform.node()} (node {self.order['rank']}): exit code {code}: {tail}")
        return f"took part as node {self.order['rank']}"

    def _meeting(self) -> dict[str, str]:
        """The variables by which the nodes of one stage find each other; node 0 chooses the place and says it in its beat."""
        if self.order["nodes"] == 1:
            return {}
        if self.order["rank"] == 0:
            self.beat.address = f"{own_address()}:{_free_port()}"
            self.wake.set()
        host, _, port = (self.order["address"] or self.beat.address).rpartition(":")
        meeting = {"NODES": self.order["nodes"], "NODE_RANK": self.order["rank"], "MASTER_ADDR": host, "MASTER_PORT": port}
        return {f"GR2_{name}": str(value) for name, value in meeting.items()}

    def _line(self, stage: str, text: str) -> None:
        self.log.info(text)
        self.beat.line = text

    def _progress(self, stage: str, text: str) -> None:
        self.beat.line = text.strip()

    def _say(self, text: str) -> None:
        self._line(self.name, text)
        self.wake.set()


def _cancelling() -> bool:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(str(flow_run.id))).state
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def own_address() -> str:
    """The address at which other nodes reach this one: GR2_NODE_ADDRESS, or that of the interface that leads to Prefect's server."""
    from urllib.parse import urlsplit

    from prefect.settings import PREFECT_API_URL

    if named := os.environ.get("GR2_NODE_ADDRESS"):
        return named
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # UDP: connecting sends nothing
        probe.connect((urlsplit(str(PREFECT_API_URL.value())).hostname or "127.0.0.1", 9))
        return str(probe.getsockname()[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _configure_dvc(home: Path, root: Path) -> None:
    """The slot's own DVC settings: those of the node's checkout (credentials profiles, endpoints), and the node's one cache."""
    (root / ".dvc").mkdir(exist_ok=True)
    local = home / ".dvc" / "config.local"
    text = local.read_text(encoding="utf-8") if local.exists() else ""
    (root / ".dvc" / "config.local").write_text(text, encoding="utf-8")
    cache = os.environ.get(CACHE) or str(home.resolve() / ".dvc" / "cache")
    configure_cache(root, {"dir": cache}, keep=True)
