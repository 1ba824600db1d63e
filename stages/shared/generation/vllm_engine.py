"""Generation with vLLM in this process; the only module that knows its interface. vLLM is imported when an engine is made."""

import gc
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tqdm import tqdm

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Completion, Constraints, Places, Prompts, Sampling
from stages.shared.lm.compressed import vllm_folder

# Read by vLLM when it is imported. A variable set by the caller wins.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core in this process: no second interpreter, and a seed that decides everything
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # pinned threads would stay pinned for the rest of the stage
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}


KEEPS_FREE = 0.05  # of a GPU: vLLM refuses to start where less than that is free; how much it takes says kv_cache_gb then


class VllmEngine:
    """The model at `folder`.

    follows: a training, whose weights it takes again and again (load_weights). It reads a prompt of several samples once (prefix cache),
    gives drawn_logprobs in place of logprobs, and on a GPU takes kv_cache_gb for keys and values and sleeps while others need the rest.
    """

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
        follows: bool = False,
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
        self.on_cpu = on_cpu = current_platform.is_cpu()
        self.end_id, self.max_model_len, self.follows = end_id, max_model_len, follows
        # A GPU's free memory is taken whole, but by an engine that shares it with a training.
        takes_its_own = on_cpu or follows
        shared: dict[str, Any] = {"enable_prefix_caching": True} if follows else {}
        if follows and not on_cpu:
            shared |= {"enable_sleep_mode": True, "gpu_memory_utilization": KEEPS_FREE}
        # What vLLM has no kernel for is served spelt out, from a copy that is gone once loaded.
        with vllm_folder(folder, dtype, on_cpu) as readable:
            self.llm: Any = LLM(
                model=str(readable),
                skip_tokenizer_init=True,  # token ids in, token ids out
                trust_remote_code=False,
                max_model_len=max_model_len,
                max_num_seqs=batch_size,
                max_logprobs=1,
                # Before temperature, mask and top_p, as Completion promises; or after them.
                logprobs_mode="processed_logprobs" if follows else "raw_logprobs",
                dtype=dtype,  # type: ignore[arg-type]
                seed=seed,
                tensor_parallel_size=tensor_parallel,
                kv_cache_memory_bytes=int(kv_cache_gb * 2**30) if takes_its_own else None,
                logits_processors=["stages.shared.generation.vllm_constraint:ConstraintProcessor"],
                enforce_eager=on_cpu,  # compiling takes longer than it saves on small models
                # Between parts of a prompt vLLM sets back a seeded request's generator, which a CPU's cannot do: prompts are read whole.
                enable_chunked_prefill=not on_cpu,
                disable_log_stats=True,
                **shared,
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
        drawn = self.follows and sampling.temperature > 0 and sampling.top_p == 1
        return [[_completion(one, self.follows, drawn) for one in sorted(output.outputs, key=lambda one: one.index)] for output in outputs]

    def load_weights(self, path: Path) -> None:
        """Replaces the weights in place by those of the safetensors file at `path`, named as in the model's folder; an engine that slept
        is awake afterwards. What the prefix cache held is of other weights, and forgotten."""
        with safe_open(path, framework="pt") as weights:
            named = ((name, weights.get_tensor(name)) for name in weights.keys())  # noqa: SIM118, no mapping
            if not self.on_cpu:
                self.llm.wake_up(["weights"])
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": named})
        if self.on_cpu:
            self.llm.apply_model(_pack_tied_head)
        else:
            self.llm.wake_up(["kv_cache"])
        self.llm.reset_prefix_cache()

    def sleep(self) -> None:
        """Frees the GPU of weights, keys and values until load_weights; on a CPU nothing is freed."""
        if not self.on_cpu:
            self.llm.sleep(level=2)

    def close(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        del self.llm
        gc.collect()
        cleanup_dist_env_and_memory()
        torch.set_num_threads = self.set_num_threads


def _completion(output: Any, follows: bool, drawn: bool) -> Completion:
    ids = list(output.token_ids)
    logprobs = [step[token].logprob for step, token in zip(output.logprobs, ids, strict=True)]
    return Completion(ids, [], drawn_logprobs=logprobs if drawn else []) if follows else Completion(ids, logprobs)


def _pack_tied_head(model: Any) -> None:
    """vLLM's CPU kernels multiply by a packed copy of a weight. Reloading packs the layers anew that it loads: the embedding, but not the
    head that shares its weight, which would go on with the old one."""
    head: Any = getattr(model, "lm_head", None)
    if getattr(getattr(model, "config", None), "tie_word_embeddings", False) and hasattr(head, "cpu_linear"):
        head.quant_method.process_weights_after_loading(head)
