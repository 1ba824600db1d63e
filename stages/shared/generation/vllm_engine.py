"""Generation with vLLM in this process; the only module that knows its interface. vLLM is imported when an engine is made."""

import gc
import os
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion, Constraints, Places, Prompts, Sampling
from stages.shared.lm.models import is_quantized, save_unquantized

# Read by vLLM when it is imported. A variable set by the caller wins.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core in this process: no second interpreter, and a seed that decides everything
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # pinned threads would stay pinned for the rest of the stage
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}


class VllmEngine:
    """The model at `folder`, once and for all: weights trained later are not seen; open another engine on them."""

    def __init__(
        self,
        folder: Path,
        end_id: int,
        max_model_len: int,
        dtype: str = "float32",
        seed: int = 0,
        tensor_parallel: int = 1,
        kv_cache_gb: float = 1.0,
        batch_size: int = 128,
        threads: int = 1,
    ):
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            remedy = "run make setup, or pip install '.[cpu]' ('.[gpu]' on a GPU host), or set this engine's kind to transformers"
            raise StageError(f"vLLM cannot be imported ({error}); {remedy}") from None
        self.set_num_threads = torch.set_num_threads  # vLLM on a CPU puts a function that does nothing in its place
        on_cpu = current_platform.is_cpu()
        self.end_id, self.max_model_len = end_id, max_model_len
        # vLLM has no 8-bit weight kernel for CPUs: there the same numbers are served spelt out, from a copy that is gone once loaded.
        with tempfile.TemporaryDirectory() if on_cpu and is_quantized(folder) else nullcontext() as copy:
            if copy:
                save_unquantized(folder, Path(copy))
            self.llm: Any = LLM(
                model=copy or str(folder),
                skip_tokenizer_init=True,  # token ids in, token ids out
                trust_remote_code=False,
                max_model_len=max_model_len,
                max_num_seqs=batch_size,
                max_logprobs=1,
                logprobs_mode="raw_logprobs",  # before temperature and top_p, as Completion promises
                dtype=dtype,  # type: ignore[arg-type]
                seed=seed,
                tensor_parallel_size=tensor_parallel,
                kv_cache_memory_bytes=int(kv_cache_gb * 2**30) if on_cpu else None,  # a GPU's free memory is taken whole
                logits_processors=["stages.shared.generation.vllm_constraint:ConstraintProcessor"],
                enforce_eager=on_cpu,  # compiling takes longer than it saves on small models
                disable_log_stats=True,
            )

    def generate(
        self, prompts: Prompts, sampling: Sampling, constraints: Constraints = None, places: Places = None
    ) -> list[list[Completion]]:
        """See Engine. StageError for a prompt that leaves no room for max_tokens."""
        from vllm import SamplingParams, TokensPrompt

        longest = max(map(len, prompts), default=0)
        if longest + sampling.max_tokens > self.max_model_len:
            raise StageError(
                f"a prompt of {longest} tokens and max_tokens {sampling.max_tokens} exceed max_model_len {self.max_model_len}; raise it"
            )
        params = [
            SamplingParams(
                n=sampling.samples,
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                # Sample i of a request draws with this seed + i, so requests lie `samples` apart.
                seed=None if sampling.temperature == 0 else (sampling.seed * 1_000_003 + place) * sampling.samples,
                logprobs=0,  # of the token drawn alone
                stop_token_ids=[self.end_id],
                ignore_eos=True,  # the model's config may name others
                detokenize=False,
                skip_special_tokens=False,
                # Without a token to close there is nothing to do, and vLLM takes no drafts.
                extra_args={"constraint": asdict(constraints[prompt])} if constraints and constraints[prompt].closes else None,
            )
            for prompt, place in enumerate(places or range(len(prompts)))
        ]
        requests = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        outputs = self.llm.generate(requests, params, use_tqdm=lambda *args, **kwargs: tqdm(*args, **kwargs, delay=3))
        return [[_completion(one) for one in sorted(output.outputs, key=lambda one: one.index)] for output in outputs]

    def close(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        del self.llm
        gc.collect()
        cleanup_dist_env_and_memory()
        torch.set_num_threads = self.set_num_threads


def _completion(output: Any) -> Completion:
    ids = list(output.token_ids)
    return Completion(ids, [step[token].logprob for step, token in zip(output.logprobs, ids, strict=True)])
