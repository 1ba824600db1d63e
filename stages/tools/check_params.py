"""`python -m stages.tools.check_params FILE ...`: whether every section of a params.yaml is valid, and whether the stages' go together.

A stage checks its own section when its turn comes, which may be hours after the first has begun. `gr2 run` asks this tool before.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from stages.distil.params import DistilParams
from stages.embed.params import EmbedParams
from stages.evaluate.params import EvaluateParams
from stages.ingest.params import IngestParams
from stages.midtrain.params import SCRATCH, MidtrainParams
from stages.promote.params import PromoteParams
from stages.quantize.params import QuantizeParams
from stages.report.params import ReportParams
from stages.retrieve.params import RetrieveParams
from stages.rl.params import RlParams
from stages.sft.params import SftParams
from stages.shared.core.errors import StageError
from stages.shared.core.params import section_of
from stages.shared.core.yaml_text import load_yaml
from stages.shared.generation.params import EngineParams, TeacherEngineParams
from stages.shared.slates.layouts.marks import letters
from stages.shared.slates.prompt_params import PromptParams
from stages.tokenize.params import TokenizeParams
from stages.tools import training_checks
from stages.traces.params import NO_MODEL, TracesParams

DISTILLED = "data/distil/model"


class Params(NamedTuple):
    """Every section of params.yaml that a stage or gr2 promote reads, by the section's name."""

    ingest: IngestParams
    embed: EmbedParams
    tokenize: TokenizeParams
    retrieve: RetrieveParams
    prompt: PromptParams
    midtrain: MidtrainParams
    traces: TracesParams
    sft: SftParams
    distil: DistilParams
    rl: RlParams
    quantize: QuantizeParams
    evaluate: EvaluateParams
    report: ReportParams
    promote: PromoteParams


def main(files: list[str]) -> int:
    # Always under the name params.yaml: the files are temporary copies, whose names would help nobody.
    faults = [fault for file in files for fault in check(Path(file).read_text(encoding="utf-8"), "params.yaml")]
    if faults:
        print("\n".join(dict.fromkeys(faults)))
    return 1 if faults else 0


def check(text: str, source: str) -> list[str]:
    """What is wrong, a line each: in single sections, else between them."""
    sections: dict[str, BaseModel] = {}
    faults: list[str] = []
    try:
        document = load_yaml(text, source)
    except StageError as error:
        return [str(error)]
    # All sections, also after a fault: one look at the output tells everything that is to be mended.
    for name, model in Params.__annotations__.items():
        try:
            sections[name] = section_of(name, model, document, source)
        except StageError as error:
            faults += str(error).splitlines()
    return faults or [f"{source}: {fault}" for fault in contradictions(Params(**sections))]  # type: ignore[arg-type]


def contradictions(params: Params) -> Iterator[str]:
    """Values that are valid each and cannot be meant together."""
    yield from _slates(params)
    yield from _models(params)
    yield from _distillation(params)
    yield from _quantization(params)
    yield from _lengths(params)
    trained = {"midtrain": params.midtrain, "sft": params.sft, "distil": params.distil, "rl": params.rl}
    yield from training_checks.configurations(trained)
    yield from training_checks.first_training(params.midtrain)
    yield from training_checks.quoted_facts(params.prompt, params.rl)


def _slates(params: Params) -> Iterator[str]:
    candidates, world, window = params.retrieve.candidates, params.ingest.world, params.prompt.window
    try:
        letters(min(candidates, window or candidates))
    except StageError as error:
        yield f"{'prompt.window' if window else 'retrieve.candidates'}: {error}, or set prompt.window"
    if params.evaluate.window_step > window:
        yield (
            f"evaluate.window_step: windows of {window} (prompt.window) that move by {params.evaluate.window_step} candidates leave some "
            "out; set it to at most prompt.window, better half of it"
        )
    # A slate's history is cut when it is made; what was cut off cannot be shown.
    if params.prompt.history > params.retrieve.history:
        yield (
            f"prompt.history: {params.prompt.history} items are to be shown, and retrieve.history keeps {params.retrieve.history} in a "
            "slate; lower the one or raise the other"
        )
    # Twice as many, because the beam also holds items that the user has taken already.
    if params.retrieve.model == "language_model" and params.retrieve.language_model.beam < candidates:
        yield (
            f"retrieve.language_model.beam: a beam of {params.retrieve.language_model.beam} cannot find the {candidates} of "
            "retrieve.candidates; raise it to twice as many"
        )
    if params.ingest.source == "synthetic" and candidates + world.longest >= world.items:
        yield (
            f"retrieve.candidates: {candidates} that a user has not taken cannot be had of ingest.world.items = {world.items} when one "
            f"takes {world.longest} (ingest.world.longest); lower it or raise items"
        )
    if params.ingest.source == "synthetic" and params.ingest.min_interactions > world.longest:
        yield (
            f"ingest.min_interactions: no user has {params.ingest.min_interactions}, as ingest.world.longest is {world.longest}; lower it"
        )
    if params.ingest.source == "table" and params.ingest.split == "global_time" and not params.ingest.table.timestamp:
        yield "ingest.split: global_time needs times, and ingest.table.timestamp names no column; name it or choose another split"
    if params.retrieve.model == "given" and params.ingest.source == "table" and not params.ingest.table.timestamp:
        yield (
            "retrieve.model: given puts slates where they belong by time, and ingest.table.timestamp names no column; name it or choose "
            "another retriever"
        )


def _models(params: Params) -> Iterator[str]:
    midtrain, traces = params.midtrain, params.traces
    if params.tokenize.append_to and not Path(params.tokenize.append_to).is_dir():
        yield f"tokenize.append_to: {params.tokenize.append_to}: no such folder; name one with sid_map.parquet and codebooks.safetensors"
    endpoint = traces.language_model.engine.endpoint if traces.language_model.engine.kind == "endpoint" else None
    if traces.teacher == "language_model" and endpoint and not (endpoint.base_url and endpoint.model):
        yield "traces.language_model.engine.endpoint: base_url and model are needed where engine.kind is endpoint; name them"
    by_text = endpoint is not None and endpoint.api == "chat"  # the server tokenizes, so no folder is read
    if traces.teacher == "language_model" and traces.language_model.model == NO_MODEL and not by_text:
        yield (
            f"traces.language_model.model: {NO_MODEL} is no model, and traces.teacher is language_model; name the teacher's folder, or set "
            "traces.teacher: statistical"
        )
    if traces.teacher == "ranker_explained" and params.prompt.layout == "chat" and not params.prompt.evidence:
        yield "traces.teacher: ranker_explained explains its order by the evidence, which prompt.evidence: false leaves out; set it to true"
    if traces.keep > traces.attempts:
        yield f"traces.keep: {traces.keep} traces of a slate cannot be kept of {traces.attempts} attempts; raise traces.attempts"
    if midtrain.model == SCRATCH and midtrain.hidden % (2 * midtrain.heads):
        yield (
            f"midtrain.hidden: {midtrain.hidden} must be a multiple of 2 * heads = {2 * midtrain.heads}: each head has an even width "
            "(rotary positions)"
        )
    if midtrain.new_rows_lr and midtrain.deepspeed:
        yield (
            "midtrain.new_rows_lr: DeepSpeed steps on its own copies of the weights, so no row can have its own rate; set it to 0, or "
            "leave midtrain.deepspeed empty"
        )
    if params.prompt.layout == "chat" and midtrain.model == SCRATCH:
        yield (
            f"prompt.layout: chat speaks through the chat template of a pretrained model, and midtrain.model is {SCRATCH}; name an "
            "instruction-tuned model, or set prompt.layout: compact"
        )


def _distillation(params: Params) -> Iterator[str]:
    distil, starts_rl = params.distil, params.rl.start == DISTILLED
    if distil.mode in ("answer_only", "race") and not params.prompt.reasoning:
        yield f"distil.mode: {distil.mode} learns the answers of a model that reasons, and prompt.reasoning is false; set it to true"
    if starts_rl and not distil.trains:
        yield f"rl.start: {DISTILLED} is empty where distil.mode is none; choose a mode, or set rl.start: data/sft/model"
    if starts_rl and distil.mode == "answer_only":
        yield (
            f"rl.start: {DISTILLED} answers at once (distil.mode: answer_only), and rl asks for thoughts (prompt.reasoning); set rl.start: "
            "data/sft/model"
        )
    later = {"data/rl/model", "data/quantize/model"} & {distil.student, distil.teacher}
    if starts_rl and later:
        yield f"rl.start: {DISTILLED} is made of {min(later)}, which is made of it; set rl.start: data/sft/model"


def _quantization(params: Params) -> Iterator[str]:
    """What the sizes of a decoder from scratch say; of other models the stage says it."""
    midtrain, quantize = params.midtrain, params.quantize
    if midtrain.model != SCRATCH:
        return
    uneven = [size for size in (midtrain.hidden, midtrain.intermediate) if quantize.grouped and size % quantize.group_size]
    if uneven:
        yield (
            f"quantize.group_size: {quantize.group_size} does not divide the {uneven[0]} inputs of a layer (midtrain.hidden, "
            "midtrain.intermediate); choose a smaller power of two"
        )
    if len(set(quantize.protect)) == 1:
        yield f"quantize.protect: {quantize.protect[0]}: the head of this model is its embedding matrix itself; name both or neither"


def _lengths(params: Params) -> Iterator[str]:
    midtrain, teacher = params.midtrain, params.traces.language_model
    if midtrain.row_length > midtrain.max_length:
        yield (
            f"midtrain.row_length: rows of {midtrain.row_length} tokens do not fit into midtrain.max_length = "
            f"{midtrain.max_length}; lower it"
        )
    if midtrain.model == SCRATCH:
        for key, tokens in {"rl.max_tokens": params.rl.max_tokens, "evaluate.max_tokens": params.evaluate.max_tokens}.items():
            if tokens >= midtrain.max_length:
                yield f"{key}: {tokens} tokens and their prompt do not fit into midtrain.max_length = {midtrain.max_length}; lower it"
    if params.prompt.layout == "chat":
        said = params.prompt.explanation_tokens + (params.prompt.think_tokens if params.prompt.reasoning else 0)
        for key, tokens in {"rl.max_tokens": params.rl.max_tokens, "evaluate.max_tokens": params.evaluate.max_tokens}.items():
            if tokens <= said:
                yield (
                    f"{key}: {tokens} tokens are cut before an answer of prompt.think_tokens and prompt.explanation_tokens, {said} "
                    "together, and its names can end; raise it"
                )
    names = min(params.retrieve.candidates, params.prompt.window or params.retrieve.candidates)
    lengths = {"rl.max_tokens": params.rl.max_tokens, "evaluate.max_tokens": params.evaluate.max_tokens}
    lengths |= {"distil.max_tokens": params.distil.max_tokens} if params.distil.trains else {}
    # A SID is a token a level between its two marks.
    tokens_a_name = 1 if params.prompt.answer == "letters" else params.tokenize.levels + 2
    yield from training_checks.names_fit(names, tokens_a_name, params.prompt, lengths)
    yield from _engine("evaluate", params.evaluate.engine, params.evaluate.max_tokens, "evaluate.max_tokens")
    budget, engine = params.prompt.max_tokens if params.prompt.layout == "chat" else 0, params.evaluate.engine
    if engine.kind == "vllm" and params.evaluate.max_tokens < engine.max_model_len < budget + params.evaluate.max_tokens:
        yield (
            f"evaluate.engine.max_model_len: {engine.max_model_len} tokens do not hold a prompt of prompt.max_tokens = {budget} and "
            f"evaluate.max_tokens = {params.evaluate.max_tokens}; raise it to {budget + params.evaluate.max_tokens}"
        )
    if midtrain.model == SCRATCH and params.evaluate.engine.kind == "vllm" and params.evaluate.engine.max_model_len > midtrain.max_length:
        yield (
            f"evaluate.engine.max_model_len: {params.evaluate.engine.max_model_len} is more than the model has positions, "
            f"midtrain.max_length = {midtrain.max_length}; lower it"
        )
    if params.traces.teacher == "language_model":
        yield from _engine("traces.language_model", teacher.engine, teacher.max_tokens, "traces.language_model.max_tokens")


def _engine(place: str, engine: EngineParams | TeacherEngineParams, max_tokens: int, key: str) -> Iterator[str]:
    if engine.kind == "vllm" and engine.max_model_len <= max_tokens:
        yield (
            f"{place}.engine.max_model_len: {engine.max_model_len} tokens leave no room for a prompt before {key} = {max_tokens}; raise it"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
