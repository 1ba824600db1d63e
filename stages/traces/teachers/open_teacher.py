"""Opens the teacher that the parameters name, and keeps what it was asked."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stages.shared.core.errors import StageError
from stages.shared.generation.base import Sampling
from stages.shared.generation.choose import open_engine
from stages.shared.generation.endpoint.chat import EndpointChat
from stages.shared.generation.endpoint.client import EndpointClient
from stages.shared.generation.invocations import Invocations
from stages.shared.generation.journal import AnswerJournal
from stages.shared.generation.resumable import ResumableEngine, folder_sha256
from stages.shared.lm.models import load_tokenizer
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.slate import Catalog
from stages.traces.params import NO_MODEL, LanguageModelTeacherParams, TracesParams
from stages.traces.teachers.asking import Asker, ChatAsker, TokenAsker
from stages.traces.teachers.chat_teacher import ChatTeacher
from stages.traces.teachers.language_model import LanguageModelTeacher
from stages.traces.teachers.random_order import RandomTeacher
from stages.traces.teachers.ranker_explained import RankerExplainedTeacher
from stages.traces.teachers.replies import RecordedAsker, RecordingAsker
from stages.traces.teachers.teacher import StatisticalTeacher, Teacher


@dataclass
class TeacherRecord:
    """endpoint: its metrics, once the teacher is closed; empty for a teacher in this process. asker: of a shard."""

    invocations: Invocations
    endpoint: dict[str, object] = field(default_factory=dict)
    asker: RecordingAsker | None = None


@contextmanager
def open_teacher(
    params: TracesParams, layout: Layout, catalog: Catalog, journal: AnswerJournal, record_replies: bool = False
) -> Iterator[tuple[Teacher, TeacherRecord]]:
    """record_replies: for a shard. Otherwise, where there are shards, their replies are read and no model is loaded."""
    targeted, model_params = params.mode == "targeted", params.language_model
    record = TeacherRecord(Invocations(model_params.keep_invocations and params.teacher == "language_model"))
    if params.teacher == "statistical":
        yield StatisticalTeacher(layout, params.temperature, params.seed, targeted, not params.shuffle), record
        return
    if params.teacher == "ranker_explained":
        yield RankerExplainedTeacher(layout, params.temperature, params.seed, targeted, not params.shuffle), record
        return
    if params.teacher == "random":
        yield RandomTeacher(layout, params.seed), record
        return
    sampling = Sampling(model_params.max_tokens, model_params.temperature, model_params.top_p, seed=params.seed)
    with ExitStack() as stack:
        if params.shards and not record_replies:
            asker: Asker = RecordedAsker(params.shards, record.invocations, model_params.engine.kind)
        else:
            asker = _open_asker(params, model_params, journal, record, stack)
        if record_replies:
            assert isinstance(asker, TokenAsker)  # TracesParams allows no endpoint
            record.asker = asker = RecordingAsker(asker, model_params.keep_invocations)
        if isinstance(layout, ChatLayout):
            yield ChatTeacher(asker, sampling, layout, catalog, targeted), record
        else:
            yield LanguageModelTeacher(asker, sampling, layout, catalog, targeted), record


def _open_asker(
    params: TracesParams, model_params: LanguageModelTeacherParams, journal: AnswerJournal, record: TeacherRecord, stack: ExitStack
) -> Asker:
    engine_params, folder, client = model_params.engine, Path(model_params.model), None
    if engine_params.kind == "endpoint":
        client = EndpointClient(engine_params.endpoint, journal, skip_failed=True)
        stack.callback(lambda: record.endpoint.update(client.metrics()))
        if engine_params.endpoint.api == "chat":  # the server tokenizes: no folder is read
            chat = EndpointChat(client)
            stack.callback(chat.close)
            return ChatAsker(chat, record.invocations)
    if model_params.model == NO_MODEL:
        raise StageError("traces.language_model.model: the folder of the teacher is not given; or choose traces.teacher: statistical")
    engine = stack.enter_context(open_engine(engine_params, folder, params.seed, params.threads, client))
    if client is None:
        identity = [folder_sha256(folder), engine_params.model_dump(exclude={"endpoint"}), params.seed, params.threads]
        engine = ResumableEngine(engine, journal, identity, model_params.save_prompts)
    return TokenAsker(engine, load_tokenizer(folder), record.invocations, engine_params.kind)
