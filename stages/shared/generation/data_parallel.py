"""Engines side by side, a process each, every one with the whole model: a model that fits on one GPU is served best so."""

from collections.abc import Iterator
from pathlib import Path

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion, Constraints, Places, Prompts, Sampling
from stages.shared.generation.engine_process import EngineProcess, gpus
from stages.shared.generation.params import EngineParams, TeacherEngineParams


class DataParallelEngine:
    """Prompt i goes to process i % data_parallel, and draws by its place among all: what one engine would draw, roundings apart."""

    def __init__(self, params: EngineParams | TeacherEngineParams, folder: Path, seed: int, threads: int):
        self._workers: list[EngineProcess] = []
        alone = params.model_copy(update={"data_parallel": 1}).model_dump(exclude={"endpoint"})
        request = {"params": alone, "folder": str(folder), "seed": seed, "threads": threads}
        name = "an engine process (engine.data_parallel)"
        try:
            # All are started before the first is waited for: each loads for a while.
            self._workers = [EngineProcess(name, devices, threads) for devices in shares_of_devices(params)]
            for worker in self._workers:
                worker.send(request)
            for worker in self._workers:
                worker.receive()
        except BaseException:
            self.close()
            raise

    def generate(
        self, prompts: Prompts, sampling: Sampling, constraints: Constraints = None, places: Places = None
    ) -> list[list[Completion]]:
        """See Engine."""
        results: list[list[Completion]] = [[] for _ in prompts]
        shares = [list(range(start, len(prompts), len(self._workers))) for start in range(len(self._workers))]
        busy = [(worker, rows) for worker, rows in zip(self._workers, shares, strict=True) if rows]
        for worker, rows in busy:
            own = [constraints[row] for row in rows] if constraints else None
            worker.send_prompts([prompts[row] for row in rows], sampling, own, [places[row] if places else row for row in rows])
        for worker, rows in busy:
            for row, samples in zip(rows, worker.receive_completions(), strict=True):
                results[row] = samples
        return results

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


def shares_of_devices(params: EngineParams | TeacherEngineParams) -> Iterator[str | None]:
    """For each process the value of CUDA_VISIBLE_DEVICES; None where there are no GPUs to share out. StageError for too few of them."""
    visible = gpus()
    needed = params.data_parallel * params.tensor_parallel
    if not visible:
        yield from [None] * params.data_parallel
        return
    if len(visible) < needed:
        raise StageError(
            f"engine.data_parallel {params.data_parallel} times tensor_parallel {params.tensor_parallel} are {needed} GPUs, and "
            f"{len(visible)} are visible here; lower one of them"
        )
    for start in range(0, needed, params.tensor_parallel):
        yield ",".join(visible[start : start + params.tensor_parallel])
