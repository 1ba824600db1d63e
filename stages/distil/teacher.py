"""The model that is learnt from."""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.distil.params import NO_MODEL, DistilParams
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json
from stages.shared.lm.models import check_weights, load_model, load_tokenizer, spell_out
from stages.shared.lm.packaged import folder_of
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.layouts.marks import END, THINK_END
from stages.shared.slates.sids import CODE_TOKEN
from stages.shared.slates.slate import Catalog
from stages.shared.training.zero import zero_options


def student_folder(params: DistilParams) -> Path:
    return folder_of(params.student)


def teacher_folder(params: DistilParams) -> Path:
    """The student's where none is named."""
    return student_folder(params) if params.teacher == NO_MODEL else folder_of(params.teacher)


def check_teacher(params: DistilParams, layout: Layout, catalog: Catalog) -> None:
    """StageError unless both folders are models, and the teacher can teach this student."""
    student, teacher = student_folder(params), teacher_folder(params)
    ours, theirs = load_tokenizer(student), load_tokenizer(teacher)
    check_weights(student)
    check_weights(teacher)
    if params.mode != "answer_only":
        check_same_vocabulary(student, ours, teacher, theirs)
    needed = [*([] if layout.dialogue else [THINK_END, END]), *sid_tokens(catalog)]
    if missing := [token for token in needed if token not in theirs.get_vocab()]:
        raise StageError(
            f"{teacher}: distil.teacher does not know {missing[0]!r}, which this project's prompts are written with; name a model that "
            "was trained in this project, on the same semantic IDs"
        )


def sid_tokens(catalog: Catalog) -> list[str]:
    """Those of the catalogue's semantic IDs."""
    return sorted({token.group() for sid in catalog.sids for token in CODE_TOKEN.finditer(sid)})


def check_same_vocabulary(student: Path, ours: PreTrainedTokenizerBase, teacher: Path, theirs: PreTrainedTokenizerBase) -> None:
    """StageError unless a token id means the same to both, and their heads have a row for the same ids."""
    remedy = f"distil.mode: on_policy and race need one of the vocabulary of distil.student ({student}); answer_only takes any"
    own, other = ours.get_vocab(), theirs.get_vocab()
    if own != other:
        token = min(own.items() ^ other.items(), key=lambda item: (item[1], item[0]))[0]
        said = f"{token!r} is {own.get(token, 'no token')} for the student and {other.get(token, 'no token')} for the teacher"
        raise StageError(f"{teacher}: another vocabulary ({said}); {remedy}")
    rows = [_head_rows(folder) for folder in (student, teacher)]
    if rows[0] != rows[1]:
        raise StageError(f"{teacher}: a head of {rows[1]} rows, and the student's has {rows[0]}; {remedy}")


def _head_rows(folder: Path) -> int:
    config = read_json(folder / "config.json")
    return int((config.get("text_config") or config)["vocab_size"])


def load_teacher(params: DistilParams, device: str = "cpu") -> PreTrainedModel:
    """Frozen; in bfloat16 where the student computes in it."""
    model = load_model(teacher_folder(params), params.computes_in, device)
    spell_out(model)  # its base_model is called alone
    model.requires_grad_(False)
    return model


def check_not_shared_out(params: DistilParams) -> None:
    """StageError under ZeRO-3: every process samples from the weights it holds."""
    if zero_options(params.deepspeed).get("stage", 0) > 2:
        raise StageError(
            f"params.yaml: distil.deepspeed: {params.deepspeed}: mode: on_policy samples from local weights and takes ZeRO stage 2 at "
            "most; use infra/deepspeed/zero2.json"
        )
