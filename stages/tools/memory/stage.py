"""What is computed of a stage, and in what units."""

from dataclasses import dataclass, field

GB = 2.0**30
CONTEXT = 4 * GB  # of a GPU: CUDA, NCCL, kernels, fragmentation
LIBRARIES = 1.5 * GB  # of the host, a process: python, torch, transformers


@dataclass
class StageMemory:
    """gpu: of one GPU; host: of the machine. faults: what the numbers alone do not say. shards: how many stages of this kind there are,
    each of which takes so much and writes `disk`; 0 = it is one stage."""

    stage: str
    model: str
    gpus: int
    gpu_limit: float
    host_limit: float
    gpu: dict[str, float] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    shards: int = 0
    disk: float = 0.0

    @property
    def fits(self) -> bool:
        return sum(self.gpu.values()) <= self.gpu_limit and sum(self.host.values()) <= self.host_limit and not self.faults


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of a process's batch; of them those that the loss counts; and of all rows."""

    tokens: int
    counted: int
    rows: int


@dataclass(frozen=True)
class Sizes:
    """Tokens of a prompt, of what is written after it, and of a training row of both."""

    prompt: int
    trace: int

    @property
    def row(self) -> int:
        return self.prompt + self.trace
