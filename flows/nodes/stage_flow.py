"""One stage on a node of a work pool: the flow that a Prefect worker starts in the node's checkout.

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
from urllib.parse import urlsplit
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed
from pydantic import JsonValue

from flows.nodes.heartbeat import send_heartbeats
from flows.nodes.messages import Heartbeat, NodeFacts, NodeProgress, StageRequest, StageResult, read_message
from flows.server.settings import without_prefect
from flows.server.signals import stopping
from tasks.dvc import remote
from tasks.dvc.log_parser import Callbacks
from tasks.dvc.remote import RemoteUnavailable
from tasks.dvc.repo import configure_cache
from tasks.nodes import slots, snapshot
from tasks.project.graph import Graph, Stage, read_graph
from tasks.project.output_folders import drop_other_shards
from tasks.run.retries import TransientError, is_transient
from tasks.run.stage import Runner, stage_environment
from tasks.system.errors import Interrupted, ProjectError, StageFailed
from tasks.system.hardware import hardware
from tasks.system.progress import StageProgress
from tasks.system.redaction import without_secrets
from tasks.system.yaml_files import write_text

HOME, CACHE = "GR2_NODE_HOME", "GR2_NODE_CACHE"
SHORTEST_LEASE_S = 60.0  # Prefect's server refuses a shorter one
TRANSIENT, STAGE_FAILED = "Transient", "StageFailed"  # names of the two failed states: the orchestrator tries again after the first


@flow(name="node", flow_run_name="{stage}", persist_result=False, validate_parameters=False)
def node(stage: str, request: dict[str, JsonValue]) -> State[None]:
    """Runs `stage`. `request`: the keys of a StageRequest; Prefect hands parameters over as JSON.

    Prefect servers know this flow, and the deployments of it, by the name `node`: keep it.
    """
    try:
        job = StageJob(stage, read_message(StageRequest, request, "the request that this node got"))
    except ProjectError as error:
        return Failed(name=STAGE_FAILED, message=f"{platform.node()}: {error}")
    with send_heartbeats(str(flow_run.id), job.request.lease_s / 6, job.heartbeat) as job.wake, stopping(job.stop):
        try:
            message = job.run()
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


class StageJob:
    """Carries out one request, from the code checkout to the push of the outputs. A signal handler may call `stop` at any time."""

    def __init__(self, name: str, request: StageRequest):
        self.name, self.request = name, request
        self.heartbeat = Heartbeat(node=NodeFacts(host=platform.node(), pool=request.pool, flow_run=str(flow_run.id), hardware=hardware()))
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

    def run(self) -> str:
        request, home = self.request, Path(os.environ.get(HOME) or Path.cwd())
        with ExitStack() as slot_locks:
            gpus = request.gpus
            if gpus:
                # Strict: when the lease cannot be renewed, others may get the slots, so this stage has to end.
                lease_s = max(SHORTEST_LEASE_S, request.lease_s)
                slot_locks.enter_context(concurrency(request.limit, occupy=gpus, lease_duration=lease_s, strict=True))
            slot = slot_locks.enter_context(slots.acquire_slot(home))
            gpu_env = slot_locks.enter_context(slots.acquire_gpus(gpus, self.halted.is_set))
            snapshot.check_out(slot.root, snapshot.origin_of(home), request.ref, request.commit)
            _configure_dvc(home, slot.root)
            graph = read_graph(slot.root)
            stage = graph[self.name]
            self._pull_inputs(slot.root, graph, stage)
            env = stage_environment({**without_prefect(), **slot.env, **gpu_env, **self._rendezvous_env()})
            if request.rank:
                return self._run_worker_rank(slot.root, stage, env)
            return self._run_rank_zero(slot.root, stage, env)

    def _pull_inputs(self, root: Path, graph: Graph, stage: Stage) -> None:
        self._announce("fetching its inputs")
        drop_other_shards(root, graph)  # of an earlier run in this slot
        remote.pull(root, [out for dep in stage.deps for out in graph.outs_of_dep(dep)])
        if (key := remote.run_key(root, stage)) != self.request.key:
            raise ProjectError(
                f"its code, parameters or inputs on this node (run {key[:12]}) are not those of the orchestrator ({self.request.key[:12]})"
            )

    def _run_rank_zero(self, root: Path, stage: Stage, env: dict[str, str]) -> str:
        """Runs the stage under DVC, as on any machine, and pushes its outputs."""
        self.runner = Runner(root, Callbacks(note=self._note, progress=self._progress, output=self._log), env)
        if self.halted.is_set():
            raise Interrupted(stage.name, "stopped before it began")
        source = "" if self.request.force else remote.fetch(root, stage)
        finished = self.runner.run(stage, force=self.request.force, checked=bool(source))
        self._announce("sending its outputs")
        remote.push(root, stage)
        self.heartbeat.result = StageResult(ran=finished.ran, seconds=finished.seconds, peak_memory_mb=finished.peak_memory_mb)
        return f"ran for {finished.seconds:.1f} s" if finished.ran else "restored: it had run before"

    def _run_worker_rank(self, root: Path, stage: Stage, env: dict[str, str]) -> str:
        """Runs the same command without DVC: on a rank above 0 a stage publishes nothing (stages.shared.core.launch)."""
        command = shlex.split(stage.cmd)
        self.child = subprocess.Popen(
            command, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.child.stdout
        tail = ""
        for line in self.child.stdout:
            tail = without_secrets(line.decode(errors="replace").strip()) or tail
            self._log(stage.name, tail)
        if code := self.child.wait():
            if self.halted.is_set():
                raise Interrupted(stage.name, "stopped")
            raise StageFailed(stage.name, f"{platform.node()} (node {self.request.rank}): exit code {code}: {tail}")
        return f"took part as node {self.request.rank}"

    def _rendezvous_env(self) -> dict[str, str]:
        """The variables by which the nodes of one stage find each other.

        Rank 0 chooses the address and publishes it in its heartbeat.
        """
        if self.request.nodes == 1:
            return {}
        if self.request.rank == 0:
            self.heartbeat.address = f"{node_address()}:{_free_port()}"
            self.wake.set()
        host, _, port = (self.request.address or self.heartbeat.address).rpartition(":")
        rendezvous = {"NODES": self.request.nodes, "NODE_RANK": self.request.rank, "MASTER_ADDR": host, "MASTER_PORT": port}
        return {f"GR2_{name}": str(value) for name, value in rendezvous.items()}

    def _log(self, stage: str, text: str) -> None:
        self.log.info(text)

    def _note(self, stage: str, text: str) -> None:
        self.heartbeat.line = text

    def _progress(self, stage: str, progress: StageProgress) -> None:
        self.heartbeat.progress = NodeProgress(done=progress.done, total=progress.total, part=progress.part)

    def _announce(self, text: str) -> None:
        self._log(self.name, text)
        self._note(self.name, text)
        self.wake.set()


def _cancelling() -> bool:
    """Whether the server has this flow run as cancelled; else the signal came from elsewhere."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(str(flow_run.id))).state
    return state is not None and (state.is_cancelling() or state.is_cancelled())


def node_address() -> str:
    """The address at which other nodes reach this one: GR2_NODE_ADDRESS, or that of the interface that leads to Prefect's server."""
    if address := os.environ.get("GR2_NODE_ADDRESS"):
        return address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # UDP: connecting sends nothing, it only chooses the interface
        probe.connect((urlsplit(str(PREFECT_API_URL.value())).hostname or "127.0.0.1", 9))
        return str(probe.getsockname()[0])


def _free_port() -> int:
    """Another process may take it before the stage does; the stage then fails and is tried again."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _configure_dvc(home: Path, root: Path) -> None:
    """Gives the slot at `root` the DVC settings of the node's checkout (credential profiles, endpoints) and the cache all slots share."""
    (root / ".dvc").mkdir(exist_ok=True)
    local = home / ".dvc" / "config.local"
    text = local.read_text(encoding="utf-8") if local.exists() else ""
    write_text(root / ".dvc" / "config.local", text)
    cache = os.environ.get(CACHE) or str(home.resolve() / ".dvc" / "cache")
    configure_cache(root, {"dir": cache}, keep=True)
