"""An engine in a process of its own beside each training process, on the same GPU; the policy's weights are sent to it.

A second process because vLLM and DeepSpeed each want the process's only process group, threads and memory policy; and because it can
draw while the trainer learns.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from stages.rl.engines.memory_file import MemoryFile
from stages.rl.engines.whole_weights import weights_of, whole_weights
from stages.rl.params import RlParams
from stages.rl.policy import Policy
from stages.shared.core.device import arithmetic
from stages.shared.core.errors import StageError
from stages.shared.core.launch import local_rank, rank, world_size
from stages.shared.generation.base import Completion, Constraints, Places, Prompts, Sampling
from stages.shared.generation.engine_process import EngineEnded, EngineProcess, gpus
from stages.shared.generation.params import EngineParams


class EngineBeside:
    """longest: tokens of the longest prompt. It answers only after `take_weights`."""

    def __init__(self, policy: Policy, params: RlParams, base: Path, longest: int):
        self.policy, self.params = policy, params
        rollout = params.rollout
        check_positions(policy, params, longest)
        dtype = arithmetic(rollout.dtype)  # here and in the engine's process: the weights are handed over in it
        options = EngineParams(
            kind=rollout.engine,
            dtype=dtype,
            batch_size=params.batch_size,
            max_model_len=longest + params.max_tokens,
            kv_cache_gb=rollout.kv_cache_gb,
        )
        visible = gpus()
        self.process = EngineProcess("the rollout engine", visible[local_rank()] if visible else None, params.threads)
        opening = {"params": options.model_dump(), "folder": str(base), "seed": params.seed, "threads": params.threads, "follows": True}
        self.process.send(opening)
        # The first process of a machine writes the weights for all engines there.
        self.file: MemoryFile | None = None
        if local_rank() == 0:
            self.file = MemoryFile({weight.name: weight.shape for weight in weights_of(policy.module)}, dtype)
        self.weights = path_of_this_machine(self.file)
        self._receive()

    def generate(
        self, prompts: Prompts, sampling: Sampling, constraints: Constraints = None, places: Places = None
    ) -> list[list[Completion]]:
        """See Engine. StageError where the engine is gone."""
        self.process.send_prompts(prompts, sampling, constraints, places or range(len(prompts)))
        try:
            return self.process.receive_completions()
        except EngineEnded as error:
            raise self._lost(error) from None

    def take_weights(self) -> None:
        """The engine draws from the policy as it is now. All processes call it together."""
        for name, tensor in whole_weights(self.policy.module):
            if self.file:
                self.file.write(name, tensor)
        if world_size() > 1:
            dist.barrier()
        self.process.send({"weights": self.weights})
        self._receive()

    @contextmanager
    def ready(self) -> Iterator[None]:
        """While open, it draws from the policy as it is. On a GPU its weights and cache then make room for training, but with ahead."""
        self.take_weights()
        yield
        if not self.params.rollout.ahead:
            self.process.send({"sleep": True})
            self._receive()

    def close(self) -> None:
        self.process.close()
        if self.file:
            self.file.close()

    def _receive(self) -> None:
        try:
            self.process.receive()
        except EngineEnded as error:
            raise self._lost(error) from None

    def _lost(self, error: EngineEnded) -> StageError:
        params = self.params
        saved = (
            f"the last checkpoint (every {params.save_steps} steps) is intact: run the stage again, and it goes on after it"
            if params.save_steps
            else "rl.save_steps is 0, so the next run begins at the first step; set it above 0"
        )
        memory = (
            "the kernel does so when memory runs out: raise resources.rl.memory_gb, or lower rl.rollout.kv_cache_gb or rl.batch_size; "
            if error.code == -9
            else ""
        )
        what = f"the rollout engine of process {rank()} ({params.rollout.engine}, pid {self.process.pid}) {error.how}"
        return StageError(f"{what}; {memory}{saved}. data/rl is as it was")


def check_positions(policy: Policy, params: RlParams, longest: int) -> None:
    """StageError where the model ends before the longest prompt and answer do."""
    room = getattr(policy.module.config, "max_position_embeddings", None)
    if room is not None and longest + params.max_tokens > room:
        raise StageError(
            f"params.yaml: a prompt of {longest} tokens and rl.max_tokens {params.max_tokens} exceed the {room} positions of the model; "
            "show less history (prompt.history), lower rl.max_tokens, or train a model with more positions"
        )


def path_of_this_machine(file: MemoryFile | None) -> str:
    """Of the file that the first process on this machine holds."""
    own = str(file.path) if file else ""
    if world_size() == 1:
        return own
    paths: list[str] = [""] * world_size()
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())  # nccl sends what lies there
    dist.all_gather_object(paths, own)
    return paths[rank() - local_rank()]
