"""vLLM in processes of their own: it changes torch's threads and memory policy for good."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.shared.engines.base import Sampling
from stages.shared.engines.choose import EngineParams, open_engine
from stages.shared.errors import StageError
from stages.shared.models import load_tokenizer
from tests.stages.shared.tiny_models import random_prompts, tiny_folder

SCRIPT = """
import json, sys
from pathlib import Path
from stages.shared.engines.base import Sampling
from stages.shared.engines.choose import EngineParams, open_engine
request = json.loads(sys.stdin.read())
answers = []
with open_engine(EngineParams(kind="vllm", max_model_len=128, kv_cache_gb=0.25), Path(request["folder"]), seed=3) as engine:
    for sampling in request["samplings"]:
        groups = engine.generate(request["prompts"], Sampling(**sampling))
        answers.append([[[one.token_ids, one.logprobs] for one in group] for group in groups])
print("ANSWER" + json.dumps(answers))
"""


def vllm_generate(folder: Path, prompts: list[list[int]], *samplings: dict[str, float]):
    request = json.dumps({"folder": str(folder), "prompts": prompts, "samplings": samplings})
    done = subprocess.run([sys.executable, "-c", SCRIPT], input=request, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("ANSWER")[2])


@pytest.mark.slow
def test_vllm_agrees_with_transformers(tmp_path):
    folder = tiny_folder(tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    prompts = random_prompts(16, len(tokenizer))
    with open_engine(EngineParams(device="cpu"), folder) as engine:
        ours = [one for (one,) in engine.generate(prompts, Sampling(24))]
    sampled = {"max_tokens": 24, "temperature": 1.0, "samples": 3, "seed": 5}
    greedy, drawn, again = vllm_generate(folder, prompts, {"max_tokens": 24}, sampled, sampled)
    theirs = [group[0] for group in greedy]
    same = [a == b for one, (tokens, _) in zip(ours, theirs, strict=True) for a, b in zip(one.token_ids, tokens, strict=False)]
    assert np.mean(same) >= 0.95
    for one, (tokens, logprobs) in zip(ours, theirs, strict=True):
        if one.token_ids == tokens:
            np.testing.assert_allclose(one.logprobs, logprobs, atol=1e-3)
    assert drawn == again
    assert len({tuple(tokens) for group in drawn for tokens, _ in group}) == 48, "samples repeat each other"


@pytest.mark.slow
def test_vllm_ends_with_the_end_token(tmp_path):
    folder = tiny_folder(tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    (group,) = vllm_generate(folder, [random_prompts(1, len(tokenizer))[0]], {"max_tokens": 60, "temperature": 2.0, "samples": 100})[0]
    ended = [tokens for tokens, _ in group if tokens[-1] == tokenizer.eos_token_id]
    assert ended and all(tokenizer.eos_token_id not in tokens[:-1] for tokens, _ in group)
    assert all(len(tokens) == 60 for tokens, _ in group if tokens not in ended)


def test_vllm_absent_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    folder = tiny_folder(tmp_path / "model")
    with pytest.raises(StageError, match="make setup"), open_engine(EngineParams(kind="vllm"), folder):
        pass
