"""vLLM in its own process: it changes torch's threads and memory policy for good. One process for all tests: it takes long to start."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.quantize.params import QuantizeParams
from stages.quantize.quantize import quantize
from stages.shared.core.device import sums_integers
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from stages.shared.generation.base import Sampling
from stages.shared.generation.choose import open_engine
from stages.shared.generation.params import EndpointParams, EngineParams, TeacherEngineParams
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.lm.compressed import to_spell_out
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.slates.constraint import PermutationConstraint
from tests.stages.shared.slates.test_constraint import constraints, encoded
from tests.support.tiny_models import CODEBOOK, random_prompts, tiny_folder
from tests.support.vllm_server import vllm_server

ROOT = Path(__file__).parents[4]
SCRIPT = """
import json, sys
from pathlib import Path
from stages.shared.generation.base import Sampling
from stages.shared.generation.choose import EngineParams, open_engine
from stages.shared.slates.constraint import PermutationConstraint, LayoutTokenIds
answers = {}
for folder, requests in json.loads(sys.stdin.read()).items():
    dtype = next(iter(requests.values()))["dtype"]
    with open_engine(EngineParams(kind="vllm", max_model_len=128, kv_cache_gb=0.25, dtype=dtype), Path(folder), seed=3) as engine:
        for name, request in requests.items():
            constraints = [
                PermutationConstraint(**{**one, "layout": LayoutTokenIds(**one["layout"])}) for one in request["constraints"]
            ]
            samplings = [Sampling(**sampling) for sampling in request["samplings"]]
            runs = [engine.generate(request["prompts"], sampling, constraints or None) for sampling in samplings]
            answers[name] = [[[[one.token_ids, one.logprobs] for one in group] for group in groups] for groups in runs]
print("ANSWER" + json.dumps(answers))
"""
OTHER_SAMPLING = {
    "do_sample": True,
    "temperature": 5.0,
    "top_k": 2,
    "top_p": 0.1,
    "repetition_penalty": 3.0,
    "eos_token_id": list(range(20, 120)),
}
NATIVE = {"w8a8": "float32", "int4": "bfloat16"}  # quantize.scheme that vLLM has kernels for on a CPU, and the dtype it is asked in
SAMPLED = {"max_tokens": 24, "temperature": 1.0, "samples": 3, "seed": 5}
HOT = {"max_tokens": 60, "temperature": 2.0, "samples": 8, "seed": 1}
# More prompts at once than vLLM reads in one pass (4,096 tokens): it would cut the one that the pass ends in.
CROWD = {"max_tokens": 3, "temperature": 1.0, "seed": 5}
HOT_UNDER_CONSTRAINT = {"max_tokens": 40, "temperature": 2.0, "samples": 2, "seed": 4}


@dataclass(frozen=True)
class Request:
    """Prompts, answered once for each of `samplings`. dtype: of the engine, one for all requests of a model."""

    prompts: list[list[int]]
    samplings: Sequence[dict[str, float]]
    constraints: Sequence[PermutationConstraint] = field(default=())
    dtype: str = "float32"


@dataclass(frozen=True)
class Answered:
    """A model, its quantized forms by scheme, and what vLLM made of them: request -> sampling -> prompt -> completion -> its token ids and
    log-probabilities."""

    folder: Path
    quantized: dict[str, Path]
    requests: dict[str, Request]
    completions: dict[str, Any]


def ask_vllm(requests: dict[Path, dict[str, Request]]) -> dict[str, Any]:
    """The completions of `requests`, which are by model folder, in one process with one engine a folder."""
    text = json.dumps({str(folder): {name: asdict(one) for name, one in named.items()} for folder, named in requests.items()})
    # Nothing is compiled: it takes longer than all the tokens asked for.
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "1"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=1500, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("ANSWER")[2])


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Answered:
    root = tmp_path_factory.mktemp("vllm")
    folder = tiny_folder(root / "data/rl/model")
    # As models bring it, and stranger: no engine may sample by it, or end at its tokens.
    (folder / "generation_config.json").write_text(json.dumps(OTHER_SAMPLING))
    quantized = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for scheme in NATIVE | {"int8": "float32"}:
            # By default the tables keep their precision; where they do not, vLLM reads a copy with the layers as they are.
            params = QuantizeParams(
                scheme=scheme, calibration_prompts=4, group_size=32, **({} if scheme == "int8" else {"method": "gptq", "protect": []})
            )
            with stage_outputs("quantize", final=root / scheme) as outputs:
                quantize(params, outputs)
            quantized[scheme] = root / scheme / "model"
    vocabulary = len(load_tokenizer(folder))
    of_model = {
        "free": Request(random_prompts(16, vocabulary), [{"max_tokens": 24}, SAMPLED, SAMPLED, HOT]),
        "crowd": Request([(one * 100)[:100] for one in random_prompts(50, vocabulary)], [CROWD, CROWD]),
        "constrained": Request(random_prompts(8, vocabulary), [{"max_tokens": 40}, HOT_UNDER_CONSTRAINT], constraints(8)),
    }
    of_quantized = {
        scheme: Request(random_prompts(8, vocabulary), [{"max_tokens": 12}], dtype=NATIVE.get(scheme, "float32")) for scheme in quantized
    }
    asked = {folder: of_model} | {quantized[scheme]: {scheme: request} for scheme, request in of_quantized.items()}
    return Answered(folder, quantized, of_model | of_quantized, ask_vllm(asked))


@pytest.mark.slow
def test_vllm_agrees_with_transformers(answered: Answered) -> None:
    tokenizer = load_tokenizer(answered.folder)
    with open_engine(EngineParams(device="cpu"), answered.folder) as engine:
        ours = [one for (one,) in engine.generate(answered.requests["free"].prompts, Sampling(24))]
    greedy, drawn, again, long = answered.completions["free"]
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
def test_vllm_draws_for_more_prompts_than_fit_a_pass(answered: Answered) -> None:
    drawn, again = answered.completions["crowd"]
    assert [len(tokens) for [[tokens, _]] in drawn].count(3) > 40
    assert drawn == again


def equal_share(ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]) -> float:
    """Of the tokens, position by position."""
    return float(np.mean([a == b for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=False)]))


@pytest.mark.slow
def test_a_server_agrees_with_both(answered: Answered, tmp_path: Path) -> None:
    """`vllm serve` as an endpoint: the answers of vLLM in this process, of which the greedy ones are those of transformers (above)."""
    prompts = answered.requests["free"].prompts
    with vllm_server(answered.folder, "tiny", tmp_path / "serve.log") as base_url:
        endpoint = EndpointParams(base_url=base_url, model="tiny", timeout_s=600.0)
        with open_engine(TeacherEngineParams(kind="endpoint", endpoint=endpoint), answered.folder) as engine:
            greedy = [one for (one,) in engine.generate(prompts, Sampling(24))]
            drawn = [one.token_ids for group in engine.generate(prompts, Sampling(**SAMPLED)) for one in group]  # type: ignore[arg-type]
    theirs, theirs_drawn = ([one for group in groups for one in group] for groups in answered.completions["free"][:2])
    assert equal_share([one.token_ids for one in greedy], [tokens for tokens, _ in theirs]) >= 0.95
    for one, (tokens, logprobs) in zip(greedy, theirs, strict=True):
        if one.token_ids == tokens:
            np.testing.assert_allclose(one.logprobs, logprobs, atol=1e-3)
    assert equal_share(drawn, [tokens for tokens, _ in theirs_drawn]) >= 0.95, "every sample has the seed that it has in this process"


@pytest.mark.slow
def test_vllm_serves_a_quantized_model(answered: Answered) -> None:
    with open_engine(EngineParams(device="cpu"), answered.quantized["int8"]) as engine:
        ours = [one for (one,) in engine.generate(answered.requests["int8"].prompts, Sampling(12))]
    (theirs,) = answered.completions["int8"]
    assert equal_share([one.token_ids for one in ours], [tokens for [(tokens, _)] in theirs]) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["w8a8", "int4"])
def test_vllm_runs_integers_where_it_has_kernels(answered: Answered, scheme: str) -> None:
    """Its products round otherwise than transformers', and a token that differs changes those after it: the first ones are compared."""
    left = to_spell_out(answered.quantized[scheme], NATIVE[scheme], on_cpu=True)
    if scheme == "w8a8" and not sums_integers():
        assert left == "all"
        pytest.skip("this CPU has no VNNI: its int8 products are not exact, and the model is spelt out")
    assert left == "tables"
    with open_engine(EngineParams(device="cpu"), answered.quantized[scheme]) as engine:
        ours = [one for (one,) in engine.generate(answered.requests[scheme].prompts, Sampling(12))]
    (theirs,) = answered.completions[scheme]
    first = [(one.token_ids[0], one.logprobs[0], tokens[0], logprobs[0]) for one, [(tokens, logprobs)] in zip(ours, theirs, strict=True)]
    same = [abs(a - b) for one, a, other, b in first if one == other]
    # With these weights 8 bits of the inputs alone move a log-probability by 0.07 on average.
    assert len(same) >= 6 and np.mean(same) < 0.1 and max(same) < 0.3 and all(len(tokens) > 1 for [(tokens, _)] in theirs)


@pytest.mark.slow
def test_vllm_follows_the_same_constraint(answered: Answered) -> None:
    tokenizer = load_tokenizer(answered.folder)
    engine = TransformersEngine(load_model(answered.folder), tokenizer.pad_token_id, tokenizer.eos_token_id)
    ours = [one for (one,) in engine.generate(answered.requests["constrained"].prompts, Sampling(40), constraints(8))]
    greedy, drawn = answered.completions["constrained"]
    assert [tokens for [[tokens, _]] in greedy] == [one.token_ids for one in ours]
    for group, rule in zip(drawn, constraints(8), strict=True):
        assert all(encoded().reader.read(tokens, rule.names, False).valid for tokens, _ in group)
    assert CODEBOOK >= 6, "the codes of these constraints exist"


def test_vllm_absent_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    folder = tiny_folder(tmp_path / "model")
    with pytest.raises(StageError, match="make setup"), open_engine(EngineParams(kind="vllm"), folder):
        pass
