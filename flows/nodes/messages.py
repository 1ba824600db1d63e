"""The messages between the orchestrator and a node. Both may run different versions of gr2, so every message has a version number."""

from collections.abc import Mapping
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from tasks.system.errors import ProjectError

VERSION: Literal[2] = 2


class _Message(BaseModel):
    """An unknown or missing key is an error, as is another version."""

    model_config = ConfigDict(extra="forbid")
    version: Literal[2] = VERSION


class StageRequest(_Message):
    """What a node is asked to run."""

    ref: str  # git ref of the code snapshot, on the remote that both know
    commit: str
    key: str  # DVC's name of the run: code, parameters and inputs
    force: bool = False
    gpus: int = Field(0, ge=0)
    limit: str = ""  # Prefect's global concurrency limit that counts the pool's GPUs
    pool: str
    lease_s: float = Field(gt=0)  # silence for longer means that the node is lost
    nodes: int = Field(1, ge=1)
    rank: int = Field(0, ge=0)
    address: str = ""  # host:port of rank 0, for ranks above 0


class NodeFacts(BaseModel):
    """Where the stage runs, for the lineage record."""

    model_config = ConfigDict(extra="forbid")
    host: str = ""
    pool: str = ""
    flow_run: str = ""
    hardware: dict[str, JsonValue] = Field(default_factory=dict)


class StageResult(BaseModel):
    """`ran`: whether its command ran on the node; false when its outputs could be restored."""

    model_config = ConfigDict(extra="forbid")
    ran: bool
    seconds: float
    peak_memory_mb: int = 0


class NodeProgress(BaseModel):
    """`done` of `total` of one part of the stage's work, as tasks.system.progress has it."""

    model_config = ConfigDict(extra="forbid")
    done: int
    total: int
    part: str = ""


class Heartbeat(_Message):
    """What a node reports: `count` goes up; `line` is what it last had to say to a person; `address` is where rank 0 can be reached."""

    count: int = 0
    line: str = ""
    progress: NodeProgress | None = None
    address: str = ""
    node: NodeFacts = Field(default_factory=NodeFacts)
    result: StageResult | None = None


Message = TypeVar("Message", bound=_Message)


def read_message(model: type[Message], document: str | Mapping[str, JsonValue], source: str) -> Message:
    """`document`: JSON text or what it holds. ProjectError names `source`, the keys that are wrong, and the remedy."""
    try:
        return model.model_validate_json(document) if isinstance(document, str) else model.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc'])) or model.__name__}: {problem['msg']}" for problem in error.errors())
        raise ProjectError(f"{source} is not one of this version of gr2 ({problems}); use one version on all machines") from None
