"""What gr2 doctor computes and finds missing."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import save_file

from stages.shared.core.params import section_of
from stages.tools import doctor, doctor_checks
from stages.tools.check_params import Params
from stages.tools.doctor_checks import Check, check_disk, check_folder, check_machine, check_shards, checks, engines, model_folders
from stages.tools.memory import precision
from stages.tools.memory.estimate import GB, StageMemory, estimate, model_gb
from stages.tools.memory.formulas import Sharding, weights_and_optimizer
from stages.tools.memory.learning import Learning
from stages.tools.memory.shapes import shape_of
from stages.tools.memory.shards import DataSize, written_gb
from tasks.project.profiles import render
from tests.support.chat_models import chat_folder

ROOT = Path(__file__).resolve().parents[3]


def params_of(*profiles: str, **sections: dict) -> tuple[Params, dict]:
    document = yaml.safe_load(render(ROOT, *profiles))
    for name, values in sections.items():
        document[name] |= values
    return Params(**{name: section_of(name, model, document, "") for name, model in Params.__annotations__.items()}), document["resources"]


def of_stage(name: str, *profiles: str, gpu_gb: float = 80.0, **sections: dict) -> StageMemory:
    params, resources = params_of(*profiles, **sections)
    stages, unknown = estimate(params, resources, gpu_gb)
    assert unknown == []
    return next(stage for stage in stages if stage.stage == name)


@pytest.mark.parametrize(("name", "whole", "without_embeddings"), [("Qwen3-8B", 8.2, 6.95), ("Qwen3-32B", 32.8, 31.2)])
def test_published_models_have_the_parameters_of_their_cards(name, whole, without_embeddings):
    shape = shape_of(Path("models") / name)
    assert shape is not None and shape.parameters / 1e9 == pytest.approx(whole, abs=0.06)
    assert (shape.parameters - 2 * shape.rows * shape.hidden) / 1e9 == pytest.approx(without_embeddings, abs=0.06)


def test_new_tokens_take_rows_only_beyond_those_that_are_free():
    shape = shape_of(Path("models/Qwen3-8B"))
    assert shape is not None
    assert shape.with_sids(4, 32).rows == shape.rows, "267 rows have no token"
    assert shape.with_sids(4, 256).rows == 152_704 > shape.rows


def test_zero_shards_what_its_paper_says():
    """Per parameter, mixed precision and Adam: 16 bytes; of N = 8 processes each keeps 2 + 14 / N under ZeRO-2 and 16 / N under ZeRO-3
    (arXiv 1910.02054, figure 1)."""
    model = Learning(10**10, 10**10)
    plain = weights_and_optimizer(model, Sharding(8, 0), bfloat16=False, keeps_float32=False)
    assert sum(plain.kept.values()) == 16 * model.held
    for stage, expected in ((2, 2 + 14 / 8), (3, 16 / 8)):
        parts = weights_and_optimizer(model, Sharding(8, stage), bfloat16=True, keeps_float32=False).kept
        assert sum(parts.values()) == pytest.approx(expected * model.held)


def test_adapters_take_no_gradients_of_what_is_frozen_and_zero_3_no_copy_a_process():
    full, lora = (of_stage("sft", "qwen3-8b", sft={"lora": {"rank": rank}}) for rank in (0, 16))
    shape = shape_of(Path("models/Qwen3-8B")).with_sids(4, 256)
    targets = 36 * 16 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12288))  # Qwen3-8B: q, o; k, v; gate, up, down
    rows = 2 * 4096 * (6 + 2 + 4 * 256)
    assert lora.gpu["optimizer"] * GB == pytest.approx(12 * (targets + rows) / 8)
    assert lora.gpu["gradients"] * GB == pytest.approx(2 * (targets + rows) / 8)
    assert lora.gpu["weights"] * GB == pytest.approx(2 * (shape.parameters + targets + 2 * rows) / 8)
    assert sum(lora.gpu.values()) < sum(full.gpu.values()) - 10
    # bfloat16, once, in the main process, beside 8 copies in float32.
    assert full.host["the whole model, to be saved"] * GB == 2 * shape.parameters
    copies = of_stage("sft", "qwen3-8b", sft={"deepspeed": "infra/deepspeed/zero2.json"}).host
    assert copies["models as they are read"] * GB == 8 * 4 * shape.parameters and "the whole model, to be saved" not in copies
    # What midtrain wrote as float32 is mapped once for all.
    mapped = of_stage("sft", "qwen3-8b", sft={"deepspeed": ""}, midtrain={"deepspeed": ""}).host
    assert mapped["models as they are read"] * GB == 4 * shape.parameters


@pytest.mark.parametrize("profiles", [["qwen3-8b"], ["beauty", "qwen3-8b"]])
def test_qwen3_8b_fits_eight_gpus_of_80_gb_and_its_host(profiles):
    params, resources = params_of(*profiles)
    stages, unknown = estimate(params, resources, 80.0)
    assert unknown == [] and [stage.stage for stage in stages] == ["midtrain", "traces", "sft", "rl", "quantize", "evaluate"]
    for stage in stages:
        assert stage.fits, (stage.stage, stage.gpu, stage.host, stage.faults)
        assert sum(stage.host.values()) <= 400 and stage.gpus in (0, 1, 8)
    assert 30 < model_gb(params) < 32


def test_what_rollouts_take_of_a_gpu_depends_on_whether_the_engine_sleeps():
    """Qwen3-8B with its new rows, in GiB: 2 or 4 bytes a parameter."""
    whole = shape_of(Path("models/Qwen3-8B")).with_sids(4, 256).parameters / GB
    beside = {"engine": "vllm", "dtype": "bfloat16", "kv_cache_gb": 8.0}
    asleep, awake = (of_stage("rl", "qwen3-8b", rl={"rollout": {**beside, "ahead": ahead}}) for ahead in (False, True))
    assert "engine's weights" not in asleep.gpu, "it sleeps at the peak, which is when gradients are made"
    assert sum(awake.gpu.values()) - sum(asleep.gpu.values()) == pytest.approx(2 * whole + 8)
    assert asleep.host["weights for the engines"] == pytest.approx(2 * whole), "once on the machine, not once a process"
    # Where the policy itself learns little, drawing is the peak.
    lora = of_stage("rl", "qwen3-8b", rl={"rollout": {**beside, "kv_cache_gb": 40.0}, "lora": {"rank": 8}}).gpu
    assert lora["engine's weights"] == pytest.approx(2 * whole) and lora["engine's cache"] == 40 and "logits" not in lora
    in_place = of_stage("rl", "qwen3-8b", rl={"rollout": {}, "batch_size": 16})
    assert in_place.gpu["whole weights, to sample"] == pytest.approx(4 * whole) and "weights for the engines" not in in_place.host
    with_kl = of_stage("rl", "qwen3-8b", rl={"kl": 0.01})
    assert with_kl.gpu["reference"] == pytest.approx(2 * whole) and with_kl.fits
    on_cpu = of_stage("rl", "tiny-qwen3")
    assert on_cpu.host["engine's cache"] == 2 * 0.25, "on a CPU nothing sleeps"


def test_a_pass_of_rl_holds_the_largest_groups_that_are_learnt_from():
    """A group of the most answers that Knapsack gives is as large as one of rl.group, less what PROF and D3S leave out of it."""

    def of_a_pass(**values) -> tuple[float, float]:
        parts = of_stage("rl", "qwen3-8b", rl={"logprob_chunk": 0, **values}).gpu
        return parts["activations"], parts["logits"]

    eight, twelve, twenty_four = (of_a_pass(group=group) for group in (8, 12, 24))
    assert eight < twelve < twenty_four
    assert of_a_pass(allocation={"knapsack_most": 24}) == twenty_four
    assert of_a_pass(allocation={"knapsack_most": 24, "knapsack_least": 4, "prof_share": 0.5}) == twelve
    assert of_a_pass(allocation={"knapsack_most": 24, "knapsack_least": 4, "d3s_share": 0.5}) == twelve
    assert of_a_pass(group=24, allocation={"d3s_share": 0.5}) == twelve
    for whole in ({"d3s_across": True}, {"d3s_relax": 9}):
        assert of_a_pass(group=24, allocation={"d3s_share": 0.5, **whole}) == twenty_four, "some groups stay whole, or all do in the end"
    # ReLIFT's step is of as many passes as an update: 8 here, of one slate each. A trace and its prompt are read as they are, side by side.
    assert of_a_pass(allocation={"relift_batch": 8}) == eight
    many = of_a_pass(allocation={"relift_batch": 80})
    assert many[0] > eight[0] and many[1] > eight[1]


def test_distillation_holds_its_teacher():
    """On policy beside the student; answers at once before it learns, on the same GPUs."""
    whole = shape_of(Path("models/Qwen3-8B")).with_sids(4, 256).parameters / GB
    section = {"processes": 8, "deepspeed": "infra/deepspeed/zero2.json", "precision": "bfloat16", "gradient_checkpointing": True}
    section |= {"batch_size": 1, "accumulate": 4, "loss_chunk": 512, "max_tokens": 512, "optimizer": "adamw"}
    resources = {"distil": {"gpus": 8, "memory_gb": 400}}
    params, _ = params_of("qwen3-8b", distil={**section, "mode": "on_policy", "teacher": "data/rl/model"})
    [own] = [stage for stage in estimate(params, resources, 80.0)[0] if stage.stage == "distil"]
    assert own.gpu["teacher"] == pytest.approx(2 * whole) and own.gpu["weights"] == pytest.approx(2 * whole)
    assert own.gpu["rollouts' cache"] * GB == 4 * (1536 + 512) * 2 * 36 * 8 * 128 * 2
    large, _ = params_of("qwen3-8b", distil={**section, "mode": "on_policy", "teacher": "models/Qwen3-32B"})
    [too_big] = [stage for stage in estimate(large, resources, 80.0)[0] if stage.stage == "distil"]
    assert too_big.gpu["teacher"] > 60 and not too_big.fits
    engine = {"kind": "vllm", "dtype": "bfloat16", "tensor_parallel": 2, "data_parallel": 4, "max_model_len": 4096}
    asked, _ = params_of("qwen3-8b", distil={**section, "mode": "answer_only", "teacher": "models/Qwen3-32B", "engine": engine})
    [before] = [stage for stage in estimate(asked, resources, 80.0)[0] if stage.stage == "distil"]
    assert before.fits and before.gpu["weights, asking"] > 30 and engines(asked)["vllm"][-1] == "distil.engine.kind"
    unheard, _ = params_of("qwen3-8b", distil={**section, "mode": "on_policy", "teacher": "models/Unheard-1B"})
    assert estimate(unheard, resources, 80.0)[1] == ["distil.teacher: models/Unheard-1B"]


@pytest.mark.parametrize("profile", ["default", "smoke", "tiny-qwen3", "smollm2", "relevance-rl"])
def test_profiles_for_a_laptop_fit_what_they_ask_for(profile):
    params, resources = params_of(profile)
    for stage in estimate(params, resources, 80.0)[0]:
        assert stage.fits and not stage.gpu, (stage.stage, stage.host, stage.host_limit)


def test_shards_of_embed_and_traces_are_stages_too():
    """Each beside resources.X_shard, with what it writes; the stage that puts them together asks no model."""
    embed = {"shards": [0, 1, 2, 3], "reads": "data/embed_shard", "batch_size": 8, "max_tokens": 256}
    traces = {"shards": [0, 1], "reads": "data/traces_shard", "attempts": 3}
    params, resources = params_of("qwen3-8b", embed=embed, traces=traces)
    resources |= {"embed_shard": {"cpus": 1, "gpus": 1, "memory_gb": 16}, "traces_shard": {"cpus": 1, "gpus": 2, "memory_gb": 200}}
    data = DataSize(items=10**7, training=10**6)
    stages = {stage.stage: stage for stage in estimate(params, resources, 80.0, data)[0]}
    assert "traces" not in stages and (stages["embed_shard"].shards, stages["traces_shard"].shards) == (4, 2)
    own = stages["embed_shard"]
    assert own.gpu["weights"] * GB == 2 * shape_of(Path("models/Qwen3-Embedding-0.6B")).parameters
    assert own.disk * GB == 10**7 / 4 * 1024 * 4 and own.host["vectors"] == 2 * own.disk and not own.fits, "20 GB of 16 are vectors"
    assert any("resources.embed_shard.memory_gb" in line for line in doctor.stage_lines(own))
    # Two engines of two GPUs each were meant for eight.
    assert stages["traces_shard"].faults[0].endswith("(resources.traces_shard.gpus)")
    tokens = params.traces.language_model.max_tokens
    assert stages["traces_shard"].disk * GB == 10**6 / 2 * 3 * tokens * 4
    assert written_gb([own, stages["traces_shard"]]) * GB == pytest.approx(2 * 10**7 * 4096 + 10**6 * 3 * tokens * 4)
    unknown, _ = params_of("qwen3-8b", embed=embed | {"model": "models/Unheard-1B"})
    assert estimate(unknown, resources, 80.0)[1] == ["embed.model: models/Unheard-1B"]


def test_shards_of_the_packaged_model_fit_a_laptop(monkeypatch):
    embed = {"shards": [0, 1], "reads": "data/embed_shard"}
    own = of_stage("embed_shard", "default", embed=embed)
    assert own.fits and 0.08 < own.host["weights"] < 0.09 and not own.gpu, "90.9 MB of float32, as the file has them"
    params, resources = params_of("default", embed=embed)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    [check] = check_shards([own], resources)
    assert check.ok and "2 of 1 cores, 0 GPUs and 2 GB each (resources.embed_shard); 2 at a time here" in check.found
    [check] = check_shards([own], {"embed_shard": {"cpus": 1, "gpus": 1, "memory_gb": 2}})
    assert not check.ok and "0 at a time" in check.found and "--placement" in check.remedy
    assert [check.name for check in checks(params, {"traces_shard": {"gpus": 8}, "embed_shard": {"memory_gb": 1}}, 1.0, [own])] == [
        *("bfloat16", "disk", "memory", "embed_shard"),
    ], "no GPU is missed for shards that are not there"


def test_what_does_not_fit_is_said():
    assert not of_stage("midtrain", "qwen3-8b", gpu_gb=24.0).fits
    assert not of_stage("rl", "qwen3-8b", rl={"gradient_checkpointing": False}).fits, "without recomputing, a group's activations alone"
    assert not of_stage("midtrain", "qwen3-8b", midtrain={"deepspeed": "", "processes": 8}).fits, "16 bytes a parameter on every GPU"
    crowded = of_stage("sft", "qwen3-8b", sft={"processes": 16})
    assert (
        not crowded.fits and "16 for 8 GPUs" in crowded.faults[0] and any("sft.processes" in line for line in doctor.stage_lines(crowded))
    )
    engine = {"kind": "vllm", "data_parallel": 8, "tensor_parallel": 2, "max_model_len": 4096}
    assert "8 engines of 2 GPUs" in of_stage("evaluate", "qwen3-8b", evaluate={"engine": engine}).faults[0]


def test_a_model_of_which_nothing_is_known_is_named():
    params, resources = params_of("qwen3-8b")
    params = params._replace(midtrain=params.midtrain.model_copy(update={"model": "models/Unheard-1B"}))
    stages, unknown = estimate(params, resources, 80.0)
    assert [stage.stage for stage in stages] == ["traces"] and unknown == ["midtrain.model: models/Unheard-1B"]


def test_folders(tmp_path):
    missing = check_folder("midtrain.model", tmp_path / "Qwen3-8B", True)
    assert not missing.ok and "no such folder" in missing.found and "Qwen3-8B" in missing.remedy
    folder = chat_folder(tmp_path / "chat")
    assert check_folder("midtrain.model", folder, True).ok
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2, "temperature": 0.6}))
    told = check_folder("midtrain.model", folder, True)
    assert told.ok and told.found.endswith("generation_config.json: temperature: not used")
    shape = shape_of(folder)
    assert shape is not None and shape.family == "qwen3"
    # A shard that the index names and the folder lacks.
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}))
    assert "model-00001-of-00002.safetensors is missing" in check_folder("k", folder, True).found
    index.unlink()
    (folder / "chat_template.jinja").unlink()
    assert "no chat template" in check_folder("k", folder, True).found and check_folder("k", folder, False).ok
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
    assert "100 rows" in check_folder("k", folder, False).found
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text("{}")
    assert "no weights" in check_folder("k", bare, False).found
    save_file({}, bare / "model.safetensors")
    assert "no tokenizer.json" in check_folder("k", bare, False).found


def test_what_is_looked_for_follows_from_the_parameters():
    big, _ = params_of("qwen3-8b")
    assert [key for key, _, _ in model_folders(big)] == ["midtrain.model", "traces.language_model.model", "embed.model"]
    assert engines(big) == {
        "vllm": ["evaluate.engine.kind", "traces.language_model.engine.kind", "rl.rollout.engine"],
        "deepspeed": ["midtrain.deepspeed", "sft.deepspeed", "rl.deepspeed"],
    }
    default, _ = params_of("default")
    assert model_folders(default) == [] and engines(default) == {}


def test_half_precision_is_told_where_a_cpu_has_none(monkeypatch):
    params, resources = params_of("smollm2", evaluate={"engine": {"kind": "vllm", "dtype": "float16"}})
    for has_kernels, words in ((True, "computed as such"), (False, "computed in float32: this CPU multiplies in nothing else")):
        monkeypatch.setattr(doctor_checks, "multiplies_in", lambda dtype, has_kernels=has_kernels: has_kernels)
        found = {check.name: check for check in checks(params, resources, 1.0, [])}
        assert found["bfloat16"] == Check("bfloat16", True, f"{words}, for midtrain.precision, sft.precision, rl.precision")
        assert found["float16"] == Check("float16", True, f"{words}, for evaluate.engine.dtype")


def test_what_a_cpu_computes_in_float32_is_reckoned_so(monkeypatch):
    def reckoned(has_kernels: bool, stage: str, profile: str, **sections: dict) -> StageMemory:
        monkeypatch.setattr(precision, "multiplies_in", lambda dtype, device: has_kernels)
        return of_stage(stage, profile, **sections)

    with_kernels, without = (reckoned(has, "sft", "smollm2").host for has in (True, False))
    assert with_kernels["bfloat16 copies"] > 0 == without["bfloat16 copies"]
    assert without["activations"] == pytest.approx(2 * with_kernels["activations"])
    with_kernels, without = (reckoned(has, "evaluate", "smollm2").host for has in (True, False))
    assert without["weights"] == pytest.approx(2 * with_kernels["weights"])
    on_gpu = [reckoned(has, "sft", "qwen3-8b") for has in (True, False)]
    assert on_gpu[0] == on_gpu[1], "what this machine's CPU can do does not count there"


def test_every_engine_that_asks_for_half_precision_is_named():
    student = {"mode": "answer_only", "teacher": "data/rl/model", "engine": {"dtype": "float16"}}
    asked = precision.half_precisions(params_of("qwen3-8b", distil=student)[0])
    assert {"traces.language_model.engine.dtype", "rl.rollout.dtype", "evaluate.engine.dtype"} <= set(asked["bfloat16"])
    assert asked["float16"] == ["distil.engine.dtype"]
    assert "traces.language_model.engine.dtype" not in precision.precisions(params_of("smollm2")[0]), "the statistical teacher asks none"


def test_disk_memory_and_gpus(monkeypatch, tmp_path):
    assert check_disk(tmp_path, 0.0).ok and not check_disk(tmp_path, 1e6).ok
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = {check.name: check.ok for check in check_machine({"sft": {"gpus": 8, "memory_gb": 1}, "rl": {"memory_gb": 1}})}
    assert found == {"GPUs": False, "memory": True}
    assert [check.ok for check in check_machine({"sft": {"memory_gb": 1e6}})] == [False]


def test_exit_codes_and_json(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(doctor_checks, "check_engine", lambda module, keys: Check(module, True, "imported"))
    path = tmp_path / "params.yaml"
    path.write_text(render(ROOT, "default"))
    assert doctor.main([str(path)]) == 0
    assert "ok       sft (infra/models/scratch)" in capsys.readouterr().out
    path.write_text(render(ROOT, "qwen3-8b"))
    assert doctor.main([str(path), "--json", "--gpu-gb", "80"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"] and all(stage["fits"] for stage in report["stages"])
    assert report["stages"][0]["gpu_gb"]["total"] == pytest.approx(sum(report["stages"][0]["gpu_gb"]["parts"].values()))
    missing = {check["name"]: check["remedy"] for check in report["checks"] if not check["ok"]}
    assert "models/Qwen3-8B" in missing["midtrain.model"] and 1 * GB == 2**30
    path.write_text(render(ROOT, "default").replace("hidden: 192", "hidden: many"))
    with pytest.raises(SystemExit, match=r"midtrain\.hidden"):
        doctor.main([str(path)])
