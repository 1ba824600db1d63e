"""Several processes for one stage: `python -m stages.<name>` starts itself again under torchrun when its parameters ask for it.

A stage of several nodes is started once on each, with GR2_NODES, GR2_NODE_RANK (0 publishes), GR2_MASTER_ADDR and GR2_MASTER_PORT
(of node 0, open to the others).
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from stages.shared.core.errors import StageError
from stages.shared.core.params import ComputeSection, Section

RENDEZVOUS_TIMEOUT_S = 600  # GR2_RENDEZVOUS_TIMEOUT_S overrules it
BEGUN = "GR2_BEGUN"  # a file that every process of a stage touches: proof that all nodes met


class TrainingSection(ComputeSection):
    """Parameters of every stage that trains a language model."""

    nodes: int = Field(1, ge=1, description="machines that train one model together, each in `processes` processes")
    processes: int = Field(1, ge=1, description="processes of torchrun on a node, one a GPU (or gloo processes on CPU)")
    deepspeed: str = Field("", description="DeepSpeed configuration, e.g. infra/deepspeed/zero2.json; empty = plain torch")
    precision: str = Field(
        "float32",
        pattern="^(float32|bfloat16)$",
        description="bfloat16 = autocast with float32 master weights; a CPU that does not multiply in it computes in float32",
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass: less memory, more time")

    @property
    def all_processes(self) -> int:
        """Of all nodes: what a step's batch is multiplied by."""
        return self.nodes * self.processes

    @property
    def computes_in(self) -> str:
        """`precision`, or float32 where this machine does not multiply in it."""
        from stages.shared.core.device import arithmetic

        return arithmetic(self.precision)

    @property
    def autocasts(self) -> bool:
        return self.computes_in == "bfloat16"

    @property
    def trains(self) -> bool:
        """False: there is nothing to train, and no process to start for it."""
        return True


@dataclass(frozen=True)
class Node:
    """This machine among those that run the stage; `address` and `port` are where node 0 waits for the others."""

    count: int
    rank: int
    address: str
    port: int


ALONE = Node(1, 0, "", 0)


def this_node(params: Section) -> Node:
    """Read from the environment. StageError unless it fits the parameters: another number of nodes would be another model."""
    count, needed = _number("GR2_NODES", "1"), getattr(params, "nodes", 1)
    if needed != count:
        remedy = (
            f"`gr2 run --placement NAME` with a pool that spans {needed} nodes, or by hand on each node with GR2_NODES={needed}, "
            "GR2_NODE_RANK, GR2_MASTER_ADDR and GR2_MASTER_PORT"
            if isinstance(params, TrainingSection)
            else "it does not train in parallel: start it on one node, without GR2_NODES"
        )
        raise StageError(f"the parameters say {needed} node{'s' * (needed > 1)}, it was started on {count} (GR2_NODES): {remedy}")
    if count == 1:
        return ALONE
    address = os.environ.get("GR2_MASTER_ADDR", "")
    if not address:
        raise StageError(f"GR2_NODES={count}, but GR2_MASTER_ADDR is not set; it is the address of node 0, as the other nodes see it")
    node = Node(count, _number("GR2_NODE_RANK"), address, _number("GR2_MASTER_PORT"))
    if not 0 <= node.rank < count:
        raise StageError(f"GR2_NODE_RANK={node.rank}: of {count} nodes the ranks are 0 to {count - 1}")
    return node


def needs_torchrun(params: Section) -> bool:
    if not isinstance(params, TrainingSection) or not params.trains:
        return False
    return (params.all_processes > 1 or bool(params.deepspeed)) and "LOCAL_RANK" not in os.environ


def torchrun(stage: str, params: Section, node: Node = ALONE) -> int:
    """Runs the stage in `params.processes` processes on this machine, together with the other nodes; returns the exit code.

    StageError when the nodes did not meet in time.
    """
    assert isinstance(params, TrainingSection)
    timeout_s = _number("GR2_RENDEZVOUS_TIMEOUT_S", str(RENDEZVOUS_TIMEOUT_S))
    # --standalone takes a free port, so two stages at once on a machine do not meet each other.
    meet = ["--standalone"]
    if node.count > 1:
        meet = [f"--nnodes={node.count}", f"--node-rank={node.rank}", f"--master-addr={node.address}", f"--master-port={node.port}"]
        meet += [f"--rdzv-id={stage}", f"--rdzv-conf=timeout={timeout_s}"]
    command = [sys.executable, "-m", "torch.distributed.run", *meet, f"--nproc-per-node={params.processes}", "-m", f"stages.{stage}"]
    with tempfile.TemporaryDirectory() as folder:
        begun = Path(folder) / "begun"
        environment = {**os.environ, "OMP_NUM_THREADS": str(params.threads), BEGUN: str(begun)}
        code = subprocess.run(command, env=environment, check=False).returncode
        # A negative code is a signal that ended the launcher, which says nothing about the rendezvous.
        if code > 0 and node.count > 1 and not begun.exists():
            raise StageError(
                f"node {node.rank}: the {node.count} nodes did not meet at {node.address}:{node.port} within {timeout_s} s "
                "(GR2_RENDEZVOUS_TIMEOUT_S). Was it started on every node, each with its own GR2_NODE_RANK, "
                "and does node 0 have that address and a free port that the others reach?"
            )
    return code


def mark_begun() -> None:
    """Says to the launcher that torchrun found all nodes; what fails from here on is not the rendezvous."""
    if BEGUN in os.environ and "LOCAL_RANK" in os.environ:
        Path(os.environ[BEGUN]).touch()


def accelerator_of_deepspeed(params: Section) -> None:
    """Call in a process of torchrun before DeepSpeed is imported: without a GPU it shall not look for other accelerators."""
    if isinstance(params, TrainingSection) and params.deepspeed and not _has_gpu():
        os.environ["DS_ACCELERATOR"] = "cpu"


def is_main_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Among the processes of this node: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def node_rank() -> int:
    """Of this node among those that run the stage."""
    return int(os.environ.get("GROUP_RANK", "0"))


def launch_name() -> str:
    """The same in all processes of this node that one launch started; another launch has another one."""
    if "LOCAL_RANK" not in os.environ:
        return str(os.getpid())
    # Without BEGUN somebody else's launcher started them, and they meet at this port.
    return Path(os.environ[BEGUN]).parent.name if BEGUN in os.environ else f"port{os.environ['MASTER_PORT']}"


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def without_compiled_collectives() -> None:
    """Call before DeepSpeed starts on CPU. Gloo alone then does the collectives.

    DeepSpeed would compile a shared-memory operator into a folder that all projects of the user share. That takes a compiler and
    half a minute, and the lock of one compilation that was killed blocks every later process.
    """
    if not _has_gpu():
        import deepspeed

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _number(name: str, default: str = "") -> int:
    text = os.environ.get(name) or default
    try:
        return int(text)
    except ValueError:
        problem = f"{name}={text!r} is not a whole number" if text else f"GR2_NODES={os.environ['GR2_NODES']}, but {name} is not set"
        raise StageError(f"{problem}; a placement sets it (gr2 run --placement NAME), by hand it is set on every node") from None
