"""A teacher's replies to a share of the slates. The stage then goes through the same loop over all slates, and finds every reply there."""

from stages.shared.core.outputs import Outputs
from stages.shared.generation.journal import AnswerJournal
from stages.traces.params import TracesParams
from stages.traces.teachers.open_teacher import open_teacher
from stages.traces.teachers.replies import FILE, RecordingAsker
from stages.traces.traces import label, prepare


def ask_shard(shard: int, params: TracesParams, outputs: Outputs) -> None:
    """Every Nth slate: the training slates are in order of time, so each shard has as many early ones, with short histories, as late ones.

    What becomes of a slate does not depend on the others, so this asks what the stage would ask about these.
    """
    ready = prepare(params)
    journal = AnswerJournal(f"traces_shard/{shard}")
    with open_teacher(params, ready.layout, ready.catalog, journal, record_replies=True) as (teacher, record):
        label(params, ready.layout, ready.scored[shard :: len(params.shards)], teacher)
    assert isinstance(record.asker, RecordingAsker)
    record.asker.write(outputs.path(FILE))
    journal.clear()
