import re

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stages.shared.core.errors import StageError
from stages.shared.core.outputs import stage_outputs
from stages.shared.generation.base import Completion, Sampling
from stages.shared.generation.invocations import Invocations
from stages.shared.generation.journal import AnswerJournal
from stages.shared.lm.models import save_model
from stages.shared.slates.candidate_features import features_with
from stages.shared.slates.layouts.marks import ASSISTANT, END, THINK, THINK_END
from stages.traces.acceptance.checks import TraceChecks
from stages.traces.acceptance.rejection import sample
from stages.traces.params import TracesParams
from stages.traces.teachers.asking import TokenAsker
from stages.traces.teachers.language_model import INSTRUCTION, LanguageModelTeacher, instruction, written_relevances
from stages.traces.teachers.open_teacher import open_teacher
from stages.traces.teachers.teacher import StatisticalTeacher
from stages.traces.traces import traces
from tests.support.traces_data import CATALOG, LAYOUT, make_slates, scored_slates, write_project

SCORED = scored_slates()[:30]
SAMPLING = Sampling(max_tokens=8, temperature=1.0, seed=7)


def foreign_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level, as Qwen's and SmolLM's: no token for a SID or a mark of the layout, and its own end token."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator([INSTRUCTION], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    if chat:
        tokenizer.chat_template = "{% for m in messages %}<<{{ m['role'] }}>>{{ m['content'] }}{% endfor %}<<assistant>>"
    return tokenizer


class FakeEngine:
    """Answers each prompt with the next of `texts`, and remembers what it was asked."""

    def __init__(self, tokenizer, texts, ended=True):
        self.tokenizer, self.texts, self.ended, self.prompts, self.seeds = tokenizer, list(texts), ended, [], []

    def generate(self, prompts, sampling, constraints=None, places=None):
        self.prompts += [self.tokenizer.decode(ids, skip_special_tokens=False) for ids in prompts]
        self.seeds.append(sampling.seed)
        found = []
        for _ in prompts:
            ids = self.tokenizer.encode(self.texts.pop(0), add_special_tokens=False)
            found.append([Completion([*ids, *([self.tokenizer.eos_token_id] if self.ended else [])], [])])
        return found


def teacher(texts, chat=False, targeted=False, ended=True):
    tokenizer = foreign_tokenizer(chat)
    engine = FakeEngine(tokenizer, texts, ended)
    return LanguageModelTeacher(TokenAsker(engine, tokenizer, Invocations(False), "fake"), SAMPLING, LAYOUT, CATALOG, targeted), engine


def model_answers(one, attempt=0):
    """What a teacher that follows the layout says: the statistical teacher's words."""
    proposal = StatisticalTeacher(LAYOUT, 0.5, 7, targeted=False).propose([one], attempt)[0]
    return proposal, f"{proposal.trace}{THINK_END}{LAYOUT.answer(one.slate, proposal.order)}"


def test_goes_through_the_same_loop_as_the_statistical_teacher():
    by_statistics = sample(StatisticalTeacher(LAYOUT, 0.5, 7, targeted=False), TraceChecks(LAYOUT), SCORED, 1, 1, 3)
    texts = [model_answers(one)[1] for one in SCORED]
    by_model = sample(teacher(texts)[0], TraceChecks(LAYOUT), SCORED, 1, 1, 3)
    assert by_model.kept and [(k.scored.slate.slate, k.proposal.order, k.proposal.relevances) for k in by_model.kept] == [
        (k.scored.slate.slate, k.proposal.order, k.proposal.relevances) for k in by_statistics.kept
    ]
    assert (by_model.right, by_model.total("luck"), dict(by_model.faults)) == (by_statistics.right, by_statistics.total("luck"), {})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text, ""),
        (lambda text: THINK + "\n" + text.replace(THINK_END, THINK_END + "\n"), ""),  # as Qwen3 writes
        (lambda text: text.replace(END, ""), ""),  # its own end token stands for ours
        (lambda text: text.replace(THINK_END, ""), "malformed"),
        (lambda text: text + " and so on", ""),  # what follows the end is nothing
        (lambda text: text.replace(THINK_END, THINK_END + "Sure: "), "malformed"),
        (lambda text: "", "malformed"),
        (lambda text: text.replace(END, " Q" + END), "outside"),
        (lambda text: text.split(THINK_END)[0] + THINK_END + text.split(THINK_END)[1][:4], "missing"),
        (lambda text: text.replace(END, text.split(THINK_END)[1]), "duplicate"),
    ],
)
def test_reads_the_answer_or_names_the_fault(change, fault):
    one = next(one for one in SCORED if 0 not in one.slate.candidates)
    proposal, text = model_answers(one)
    found = teacher([change(text)])[0].propose([one], 0)[0]
    assert found.fault == fault and found.order == (None if fault else proposal.order)
    if not fault:
        assert found.relevances == proposal.relevances


def test_cut_off_is_unfinished():
    text = model_answers(SCORED[0])[1].replace(END, "")
    assert teacher([text], ended=False)[0].propose(SCORED[:1], 0)[0].fault == "unfinished"


def test_an_invented_feature_is_refused_by_the_loop():
    one = next(one for one in SCORED if one.noise_free_rank == 0)
    order = (one.slate.target_rank, *(rank for rank in range(5) if rank != one.slate.target_rank))
    text = f" 2 match: A co77{THINK_END}{LAYOUT.answer(one.slate, order)}"
    ledger = sample(teacher([text])[0], TraceChecks(LAYOUT), [one], 1, 1, None)
    assert not ledger.kept and dict(ledger.faults) == {"unfounded": 1}


def test_the_prompt_hides_the_answer_unless_targeted():
    one = SCORED[0]
    told, target = LAYOUT.prompt(one.slate), CATALOG.sids[one.slate.candidates[one.slate.target_rank]]
    plain, engine = teacher(["x", "x"])
    plain.propose([one], 0), plain.propose([one], 3)
    assert engine.prompts[0] == INSTRUCTION.format(names="the letters") + told and engine.seeds == [7, 10]
    chat, engine = teacher(["x"], chat=True)
    chat.propose([one], 0)
    assert engine.prompts[0].endswith("<<assistant>>") and ASSISTANT not in engine.prompts[0] and "took <" not in engine.prompts[0]
    shown, engine = teacher(["x"], targeted=True)
    shown.propose([one], 0)
    assert f"The user took {target} next" in engine.prompts[0]


def test_relevances_are_read_only_when_each_candidate_has_one():
    assert written_relevances(" 2 match: B s3 A s15", 2) == (15, 3)
    for trace in (" A s3", " A s3 A s4 B s5", " A s3 B s24", " A s3 B s4 C s5", " A s3 C s4", ""):
        assert written_relevances(trace, 2) == ()


def save_random_model(folder):
    tokenizer = foreign_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    save_model(LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, **sizes)), tokenizer, folder)


def test_the_section_reaches_the_engine(tmp_path):
    save_random_model(tmp_path)
    wanted = {"model": str(tmp_path), "max_tokens": 3, "temperature": 0.2, "top_p": 0.5, "engine": {"batch_size": 5}}
    params = TracesParams.model_validate({"seed": 4, "teacher": "language_model", "mode": "targeted", "language_model": wanted})
    with open_teacher(params, LAYOUT, CATALOG, AnswerJournal("traces", tmp_path / "resume")) as (opened, _):
        assert opened.sampling == Sampling(3, 0.2, 0.5, 1, 4) and opened.asker.engine.engine.batch_size == 5 and opened.targeted
        proposals = opened.propose(SCORED[:3], 0)
        assert proposals == opened.propose(SCORED[:3], 0) != opened.propose(SCORED[:3], 1)


def test_a_real_model_runs_the_stage_to_its_honest_end(tmp_path, monkeypatch):
    """A tiny random Llama answers nonsense through the real engine: every try is a fault, and the stage says so."""
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path, make_slates(per_user=2))
    save_random_model(tmp_path / "teacher")
    params = TracesParams.model_validate(
        {
            "threads": 1,
            "time_folds": 2,
            "attempts": 1,
            "teacher": "language_model",
            "scorer": {"rounds": 5, "min_leaf": 5},
            "language_model": {"model": "teacher", "max_tokens": 6},
        }
    )
    with (
        pytest.raises(StageError, match=r"no trace of 30 slates was accepted \(faults: .*'unfinished'"),
        stage_outputs("traces") as outputs,
    ):
        traces(params, outputs)


@pytest.mark.parametrize(("more", "less"), [([], ["re"]), (["fo", "br"], []), (["br"], ["ca", "sc"])])
def test_the_instruction_tells_of_the_features_of_the_layout_alone(more, less):
    features = features_with(more, less)
    text = instruction(features)
    assert re.findall(r"\b([a-z]{2})\d\b", text) == [*features, *features] and f"its {len(features)} facts" in text
    assert all(f" {feature} " in text for feature in features) and not any(f" {feature} " in text for feature in less)
