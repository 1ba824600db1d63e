"""What is decided about a stage of a run, and what became of it: `PipelineRun` makes an Action of a stage and an Outcome of an Action."""

from dataclasses import dataclass
from pathlib import Path

from flows.nodes.messages import NodeFacts
from tasks.nodes.placement import Pool
from tasks.project.graph import Stage


@dataclass(frozen=True)
class Skip:
    """The stage is current: nothing is asked or run."""

    stage: Stage


@dataclass(frozen=True)
class RunHere:
    """DVC runs the stage on this machine, or restores it if it can."""

    stage: Stage
    force: bool


@dataclass(frozen=True)
class Restore:
    """The outputs of this very run exist: DVC restores them from `source`, its cache or remote, and nothing runs."""

    stage: Stage
    source: str


@dataclass(frozen=True)
class RunOnNode:
    """A node of `pool` runs the stage; its outputs come back through the DVC remote."""

    stage: Stage
    pool: Pool
    force: bool


Action = Skip | RunHere | Restore | RunOnNode


@dataclass(frozen=True)
class Current:
    """DVC finds the stage as it was recorded."""


@dataclass(frozen=True)
class Restored:
    """Nothing ran; its outputs came back from `source`, DVC's cache or remote."""

    source: str


@dataclass(frozen=True)
class Ran:
    """It ran for `seconds` and held `peak_memory_mb` at most; `node`: what the node that ran it reports, None for this machine.

    `not_sent`: why its outputs could not be pushed for the nodes behind it, which makes the stage Failed although its outputs are good.
    """

    seconds: float
    node: NodeFacts | None = None
    not_sent: str = ""
    peak_memory_mb: int = 0


@dataclass(frozen=True)
class Broken:
    """It failed after `seconds`. `log`: all that it printed, if it ran on this machine."""

    message: str
    seconds: float
    log: Path | None = None


@dataclass(frozen=True)
class Stopped:
    """It was stopped from outside after `seconds`, before its command began or while it ran."""

    message: str
    seconds: float


Outcome = Current | Restored | Ran | Broken | Stopped
