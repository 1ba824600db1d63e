"""vLLM in its own processes: it changes torch's threads and memory policy for good."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from stages.quantize.params import QuantizeParams
from stages.quantize.quantize import quantize
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from stages.shared.generation.base import Sampling
from stages.shared.generation.choose import EngineParams, open_engine
from stages.shared.lm.models import load_tokenizer
from stages.shared.slates.constraint import PermutationConstraint
from tests.support.tiny_models import random_prompts, tiny_folder

ROOT = Path(__file__).parents[4]
SCRIPT = """
import json, sys
from pathlib import Path
from stages.shared.generation.base import Sampling
from stages.shared.generation.choose import EngineParams, open_engine
from stages.shared.slates.constraint import PermutationConstraint, LayoutTokenIds
request = json.loads(sys.stdin.read())
answers = []
with open_engine(EngineParams(kind="vllm", max_model_len=128, kv_cache_gb=0.25), Path(request["folder"]), seed=3) as engine:
    for sampling in request["samplings"]:
        constraints = [
            PermutationConstraint(**{**one, "layout": LayoutTokenIds(**one["layout"])}) for one in request["constraints"]
        ]
        groups = engine.generate(request["prompts"], Sampling(**sampling), constraints or None)
        answers.append([[[one.token_ids, one.logprobs] for one in group] for group in groups])
print("ANSWER" + json.dumps(answers))
"""


def vllm_generate(folder: Path, prompts: list[list[int]], *samplings: dict[str, float], constraints: Sequence[PermutationConstraint] = ()):
    told = [asdict(constraint) for constraint in constraints]
    request = json.dumps({"folder": str(folder), "prompts": prompts, "samplings": samplings, "constraints": told})
    done = subprocess.run([sys.executable, "-c", SCRIPT], input=request, capture_output=True, text=True, timeout=500, cwd=ROOT)
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
    hot = {"max_tokens": 60, "temperature": 2.0, "samples": 8, "seed": 1}
    greedy, drawn, again, long = vllm_generate(folder, prompts, {"max_tokens": 24}, sampled, sampled, hot)
    theirs = [group[0] for group in greedy]
    same = [a == b for one, (tokens, _) in zip(ours, theirs, strict=True) for a, b in zip(one.token_ids, tokens, strict=False)]
    assert np.mean(same) >= 0.95
    for one, (tokens, logprobs) in zip(ours, theirs, strict=True):
        if one.token_ids == tokens:
            np.testing.assert_allclose(one.logprobs, logprobs, atol=1e-3)
    assert drawn == again
    assert len({tuple(tokens) for group in drawn for tokens, _ in group}) == 48, "samples repeat each other"

    rows = [tokens for group in long for tokens, _ in group]
    ended = [tokens for tokens in rows if tokens[-1] == tokenizer.eos_token_id]
    assert ended and all(tokenizer.eos_token_id not in tokens[:-1] for tokens in rows)
    assert all(len(tokens) == 60 for tokens in rows if tokens not in ended)


@pytest.mark.slow
def test_vllm_serves_a_quantized_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_folder(Path("data/rl/model"))
    with stage_outputs("quantize") as outputs:
        quantize(QuantizeParams(calibration_prompts=1), outputs)
    folder = tmp_path / "data/quantize/model"
    prompts = random_prompts(8, len(load_tokenizer(folder)))
    with open_engine(EngineParams(device="cpu"), folder) as engine:
        ours = [one for (one,) in engine.generate(prompts, Sampling(12))]
    (theirs,) = vllm_generate(folder, prompts, {"max_tokens": 12})
    same = [a == b for one, [(tokens, _)] in zip(ours, theirs, strict=True) for a, b in zip(one.token_ids, tokens, strict=False)]
    assert np.mean(same) >= 0.95


def test_vllm_absent_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    folder = tiny_folder(tmp_path / "model")
    with pytest.raises(StageError, match="make setup"), open_engine(EngineParams(kind="vllm"), folder):
        pass
