import json

import pytest
import torch

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Sampling
from stages.shared.generation.choose import open_engine
from stages.shared.generation.params import EngineParams
from stages.shared.lm.models import (
    check_weights,
    extend_vocabulary,
    is_quantized,
    load_model,
    load_tokenizer,
    resize_embeddings,
    sampling_settings,
    save_model,
)
from stages.shared.lm.packaged import packaged_model
from stages.shared.slates.layouts.marks import END, PAD, SPECIAL_TOKENS
from stages.shared.slates.sids import sid_text, sid_vocabulary
from tests.support.tiny_models import CODEBOOK, LEVELS, random_prompts, tiny_folder, tiny_model, tiny_tokenizer


def few_steps(model, ids: torch.Tensor, steps: int = 3) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    model.train()
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


def logits(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.slow
def test_a_pretrained_model_learns_sids_and_comes_back_the_same(tmp_path):
    """SmolLM2-135M: load, extend, train, save, reload."""
    source = packaged_model("smollm2-135m")
    tokenizer, model = load_tokenizer(source), load_model(source)
    prompt = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(logits(model, prompt)[0, -1].argmax()) == " Paris"

    before = logits(model, prompt)
    old = len(tokenizer)
    added = extend_vocabulary(tokenizer, LEVELS, CODEBOOK)
    resize_embeddings(model, tokenizer)
    assert len(tokenizer) == old + len(added)
    assert model.get_input_embeddings().weight.shape[0] % 64 == 0
    torch.testing.assert_close(logits(model, prompt)[..., :old], before)
    sid = sid_text([1, 2, 3, 4])
    assert tokenizer.convert_ids_to_tokens(tokenizer(sid, add_special_tokens=False)["input_ids"]) == sid_vocabulary_of(sid)

    ids = tokenizer(f"The film {sid} is Toy Story{END}", return_tensors="pt")["input_ids"]
    losses = few_steps(model, ids)
    assert losses[-1] < losses[0]
    save_model(model, tokenizer, tmp_path / "model")
    again, tokenizer_again = load_model(tmp_path / "model"), load_tokenizer(tmp_path / "model")
    assert torch.equal(logits(again, ids), logits(model, ids))
    assert tokenizer_again.get_vocab() == tokenizer.get_vocab()
    assert (tokenizer_again.pad_token, tokenizer_again.eos_token) == (PAD, END)
    assert again.generation_config.eos_token_id == tokenizer.eos_token_id


def sid_vocabulary_of(sid: str) -> list[str]:
    return [f"{token}>" for token in sid.split(">")[:-1]]


@pytest.mark.parametrize("tied", [True, False])
def test_small_model_comes_back_the_same(tmp_path, tied):
    tokenizer = tiny_tokenizer()
    model = tiny_model(len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id, tied=tied)
    resize_embeddings(model, tokenizer)
    ids = torch.tensor(random_prompts(2, len(tokenizer), 12, 12))
    few_steps(model, ids)
    save_model(model, tokenizer, tmp_path / "model")
    assert torch.equal(logits(load_model(tmp_path / "model"), ids), logits(model, ids))
    assert (tmp_path / "model/model.safetensors").exists() and not list(tmp_path.glob("**/*.bin"))
    assert not is_quantized(tmp_path / "model")


def test_saving_twice_gives_the_same_bytes(tmp_path):
    folders = [tiny_folder(tmp_path / name) for name in ("a", "b")]
    first, second = ({path.name: path.read_bytes() for path in sorted(folder.iterdir())} for folder in folders)
    assert first == second


def test_vocabulary_is_extended_once():
    tokenizer = tiny_tokenizer()
    wanted = [*SPECIAL_TOKENS, *sid_vocabulary(LEVELS, CODEBOOK)]
    ids = tokenizer.convert_tokens_to_ids(wanted)
    assert len(set(ids)) == len(wanted)
    assert all(tokenizer.encode(token, add_special_tokens=False) == [token_id] for token, token_id in zip(wanted, ids, strict=True))
    size = len(tokenizer)
    assert extend_vocabulary(tokenizer, LEVELS, CODEBOOK) == [] and len(tokenizer) == size


def test_no_code_from_a_model_folder_is_run(tmp_path):
    folder = tiny_folder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(StageError, match="mine"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("name", "remedy"), [("data/sft/model", "to make it: gr2 run sft"), ("elsewhere/model", "copy the whole model")])
def test_a_folder_without_a_model(tmp_path, name, remedy):
    """A stage makes the one; the other was brought here, and no stage has its name."""
    folder = tmp_path / name
    folder.mkdir(parents=True)
    with pytest.raises(StageError, match=rf"not a Hugging Face model folder.*; {remedy}"):
        load_tokenizer(folder)
    with pytest.raises(StageError, match=rf"no weights.*; {remedy}"):
        check_weights(folder)


def test_pickled_weights_alone_are_refused_with_the_remedy(tmp_path):
    folder = tiny_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(StageError, match=r"pickled \(pytorch_model.bin\).*safe.*save_pretrained"):
        load_model(folder)
    with pytest.raises(StageError, match="pickled"), open_engine(EngineParams(kind="vllm"), folder):
        pass
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(StageError, match="no weights"):
        load_model(folder)


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "change", "error"),
    [
        ("tokenizer.json", lambda c: c["added_tokens"][0].update(id=c["added_tokens"][1]["id"]), "has the id .*, and so has"),
        ("tokenizer.json", lambda c: c["model"]["vocab"].update({END: 399}), "as an added token and 399 in the vocabulary"),
        ("config.json", lambda c: c.update(vocab_size=1), r"the model 1 rows \(config.json: vocab_size\)"),
        ("tokenizer_config.json", lambda c: c.update(eos_token="<|nowhere|>"), "'<|nowhere|>'.*rows"),
    ],
)
def test_special_tokens_that_disagree_are_refused(tmp_path, file, change, error):
    folder = tiny_folder(tmp_path / "model")
    # The rows that a padded vocabulary has beyond the tokenizer's are none of a token's.
    change_json(folder / "config.json", lambda c: c.update(vocab_size=len(tiny_tokenizer())))
    assert load_tokenizer(folder).eos_token == END
    change_json(folder / file, change)
    with pytest.raises(StageError, match=error.replace("<|", r"<\|").replace("|>", r"\|>")):
        load_tokenizer(folder)


def test_a_tokenizer_without_an_end_or_a_pad(tmp_path):
    folder = tiny_folder(tmp_path / "model")
    change_json(folder / "tokenizer_config.json", lambda c: c.pop("pad_token"))
    with open_engine(EngineParams(device="cpu"), folder) as engine:
        assert [len(one.token_ids) for (one,) in engine.generate([[5, 6], [7, 8, 9]], Sampling(3))] == [3, 3]
    change_json(folder / "tokenizer_config.json", lambda c: c.pop("eos_token"))
    with pytest.raises(StageError, match="no eos_token"), open_engine(EngineParams(device="cpu"), folder):
        pass


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": False, "temperature": 0.6, "top_p": 0.9},  # transformers reads it, and then refuses to save it
        {"temperature": 0.1, "top_k": 1, "repetition_penalty": 2.0},
        {"suppress_tokens": [5, 6], "max_length": 3},
    ],
)
def test_sampling_by_a_models_own_configuration_is_left_out_said_and_not_passed_on(tmp_path, capsys, settings):
    folder, plain = tiny_folder(tmp_path / "model"), tiny_folder(tmp_path / "plain")
    assert sampling_settings(plain) == []
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 7, "transformers_version": "5", **settings}))
    model = load_model(folder)
    assert f"{', '.join(sorted(set(settings) - {'do_sample'}))}: not used" in capsys.readouterr().out
    save_model(model, load_tokenizer(folder), tmp_path / "saved")
    assert sampling_settings(tmp_path / "saved") == []
    answers = []
    for path in (folder, plain, tmp_path / "saved"):
        with open_engine(EngineParams(device="cpu"), path) as engine:
            answers.append(engine.generate([[5, 6], [7, 8, 9]], Sampling(8, temperature=1.0, seed=3)))
    assert answers[0] == answers[1] == answers[2]


def test_a_packaged_model_nobody_packaged(tmp_path):
    with pytest.raises(StageError, match="infra/models/smollm2-135m"):
        packaged_model("smollm3", tmp_path)
