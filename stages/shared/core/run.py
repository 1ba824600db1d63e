"""The entry point that every stage shares: checked parameters, seeds, threads, and errors a person can read."""

import atexit
import errno
import gc
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import threadpoolctl

from stages.shared.core.errors import StageError
from stages.shared.core.launch import accelerator_of_deepspeed, is_main_process, mark_begun, needs_torchrun, this_node, torchrun
from stages.shared.core.outputs import Outputs, stage_outputs
from stages.shared.core.params import ComputeSection, Section, load_params

S = TypeVar("S", bound=Section)
Compute = Callable[[S, Outputs], None]


def run_process(
    name: str,
    model: type[S],
    load: Callable[[], Compute[S]],
    section: str | None = None,
    final: Path | None = None,
    prepare: Callable[[S], None] | None = None,
    hidden: Iterable[str] = (),
) -> NoReturn:
    """`python -m stages.<name>`: run_stage, and the end of the process.

    Its exit functions run; what Python does after them, to free thousands of modules one by one, costs a second of CPU with torch and
    transformers. A stage that fails ends as any program does.
    """
    run_stage(name, model, load, section, final, prepare, hidden)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run_stage(
    name: str,
    model: type[S],
    load: Callable[[], Compute[S]],
    section: str | None = None,
    final: Path | None = None,
    prepare: Callable[[S], None] | None = None,
    hidden: Iterable[str] = (),
) -> None:
    """Loads the section `section` of the parameters (None: of the stage's name), runs what `load` returns, publishes its outputs.

    `load` imports the stage: with torch and transformers that takes seconds, which wrong parameters and the process that starts torchrun
    need not spend. `final`: the folder of the outputs; None: data/<name>. `prepare`: what is done once before torchrun starts several
    processes. `hidden`: packages that `load` shall not find, such as EXTRAS.

    Exit code 1 with the message alone for a StageError or a full disk; a traceback means a bug of ours.
    """
    try:
        params = load_params(section or name, model)
        node = this_node(params)
        if needs_torchrun(params):
            if prepare:
                prepare(params)
            sys.exit(torchrun(name, params, node))
        mark_begun()
        with importing(hidden):
            accelerator_of_deepspeed(params)
            compute = load()
        if isinstance(params, ComputeSection):
            set_threads(params.threads)
            set_seed(params.seed)
        without_library_bars()
        with stage_outputs(name, main=is_main_process(), final=final) as outputs:
            compute(params, outputs)
    except StageError as error:
        sys.exit(f"{name}: {error}")
    except Exception as error:
        if not disk_is_full(error):
            raise
        sys.exit(f"{name}: no space left on the disk of {os.getcwd()}; free some and run again. Earlier outputs are untouched.")


# What transformers and LightGBM import where they find it, for uses that no stage makes of them: a quarter of the time of their import.
EXTRAS = ("sklearn", "datasets", "pandas", "boto3")


@contextmanager
def importing(hidden: Iterable[str] = ()) -> Iterator[None]:
    """While the block imports: no garbage collection, nor later of what it made, and `hidden` as if it were not installed.

    torch and transformers make a million objects that all stay. Looking through them again and again is a third of the time of their
    import, and a part of every collection afterwards.
    """
    absent = [name for name in hidden if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(absent))  # None: ModuleNotFoundError, as the documentation of sys.modules has it
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for name in absent:
            del modules[name]
        atexit.register(gc.unfreeze)  # at the end the interpreter frees them as ever: nanobind takes what is left for a leak, and says so


def disk_is_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is a full disk: Polars, numpy and safetensors each say it in their own words."""
    while True:
        text = str(error).lower()
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "no space left" in text or "os error 28" in text or ("requested and" in text and "written" in text):
            return True
        if (cause := error.__cause__ or error.__context__) is None:
            return False
        error = cause


def set_threads(count: int) -> None:
    """Threads of BLAS, OpenMP and torch in this process; LightGBM and the engines take theirs as a parameter."""
    threadpoolctl.threadpool_limits(count)
    os.environ["OMP_NUM_THREADS"] = str(count)  # for processes this one starts
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Stages without torch do not pay for its import, which takes seconds.
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)


def without_library_bars() -> None:
    """No bars of transformers and the hub for what takes a moment, such as loading a model: the stage's progress is the only one."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read when they are imported
    if loaded := sys.modules.get("transformers.utils.logging"):  # not imported here: the report must not know transformers
        loaded.disable_progress_bar()


def set_seed(seed: int) -> None:
    """Seeds Python, numpy and torch, and asks torch for deterministic kernels."""
    # The global generators, for libraries that draw from them; our own code makes its generators from the seed.
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(seed)
        # A warning, not an error: some CUDA kernels that training needs have no deterministic version.
        torch.use_deterministic_algorithms(True, warn_only=True)
