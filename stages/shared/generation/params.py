"""The section that says which engine runs; without torch, so that params.yaml can be checked in a moment."""

from typing import Literal

from pydantic import Field

from stages.shared.core.params import Section

# The name of a variable, in capitals: a key itself is refused. The word in it lets gr2 blank its value out of everything printed.
KEY_VARIABLE = r"^$|^[A-Z_][A-Z0-9_]*$"
KEY_WORDS = ("API_KEY", "ACCESS_KEY", "TOKEN", "SECRET")


class EngineSettings(Section):
    """What engines in this process take. Prompt and completion together may have max_model_len tokens."""

    batch_size: int = Field(128, ge=1, description="completions decoded at once")
    max_model_len: int = Field(1024, ge=16, description="tokens of prompt and completion together (vllm)")
    tensor_parallel: int = Field(1, ge=1, description="GPUs one model is spread over (vllm)")
    data_parallel: int = Field(1, ge=1, description="engines side by side, each with the whole model and a share of the prompts")
    kv_cache_gb: float = Field(1.0, gt=0, description="memory for keys and values on a CPU (vllm)")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="transformers only; vllm runs on what it was built for")


class EngineParams(EngineSettings):
    """How completions of a model folder are generated."""

    kind: Literal["transformers", "vllm"] = "transformers"


class EndpointParams(Section):
    """An OpenAI-compatible server; read only where kind is endpoint. What it costs and how it fails is in the metrics."""

    base_url: str = Field("", pattern=r"^$|^https?://", description="up to and with /v1, as http://localhost:8000/v1")
    model: str = Field("", description="the model's name on the server")
    api: Literal["completions", "chat"] = Field(
        "completions",
        description="completions: token ids of the folder's tokenizer (vllm serve); chat: messages as text (any server)",
    )
    key_variable: str = Field("", pattern=KEY_VARIABLE, description="NAME of the environment variable that holds the key; empty = no key")
    concurrency: int = Field(16, ge=1, description="requests open at once")
    timeout_s: float = Field(300.0, gt=0, description="of one request, in seconds")
    retries: int = Field(6, ge=0, description="tries more of a request that failed by overload, time-out or a lost connection")
    first_wait_s: float = Field(1.0, ge=0, description="mean wait before the first of them; it doubles with each, and Retry-After is kept")
    longest_wait_s: float = Field(60.0, ge=0, description="mean wait at most")
    logprobs: bool = Field(False, description="ask for log-probabilities (chat; completions always do)")
    input_price: float = Field(0.0, ge=0, description="of a million tokens of prompts, for the cost in the metrics")
    output_price: float = Field(0.0, ge=0, description="of a million tokens of completions")
    extra: dict[str, bool | int | float | str] = Field({}, description="more fields of the request, as top_k: 0")


class TeacherEngineParams(EngineSettings):
    """How a teacher is asked: in this process, or behind an endpoint."""

    kind: Literal["transformers", "vllm", "endpoint"] = "transformers"
    endpoint: EndpointParams = EndpointParams.model_validate({})
