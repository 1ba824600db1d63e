"""An OpenLineage event as it stands in the record, with the facets of our own; old events lack some of them.

Reading checks only what every event has (`lines.is_event`); `gr2 lineage --verify` finds what was tampered with.
"""

from typing import Required, TypedDict

from tasks.dvc.dir_listing import Listing, Member


class RunFacet(TypedDict, total=False):
    """gr2_run. `state` and `stages`: of the whole pipeline; else of one stage. `restored`: where its outputs came from, if nothing ran."""

    revision: str | None
    dirty: bool | None
    host: str
    command: str
    seconds: float
    pool: str
    restored: str
    experiment: str
    state: str
    stages: list[str]


class CodeFacet(TypedDict, total=False):
    """gr2_code. `files`: hash by path, of a package that of the folder; `packages`: the files of each package."""

    files: dict[str, str]
    packages: dict[str, Listing]


class LockFacet(TypedDict, total=False):
    """gr2_lock: sha256 of a stage's `entry` in dvc.lock; at the end of a run, of all `entries`, and of the `text` of the file."""

    entry: str
    entries: dict[str, str]
    text: str


class NoteFacet(TypedDict, total=False):
    """gr2_note: what the record says of itself. `kind`: lost, truncated or uncommitted."""

    kind: str
    anchor: str
    index: int


class ChainFacet(TypedDict, total=False):
    """gr2_chain: see tasks.ledger.log."""

    index: int
    previous: str
    hash: str


class RunFacets(TypedDict, total=False):
    """Only those that are read again."""

    gr2_run: RunFacet
    gr2_code: CodeFacet
    gr2_lock: LockFacet
    gr2_note: NoteFacet
    gr2_chain: ChainFacet


class RunOfEvent(TypedDict):
    runId: str
    facets: RunFacets


class Job(TypedDict, total=False):
    namespace: str
    name: Required[str]


class DatasetVersion(TypedDict):
    datasetVersion: str  # md5:HASH


class Members(TypedDict, total=False):
    files: list[Member]


class DatasetFacets(TypedDict, total=False):
    version: Required[DatasetVersion]
    gr2_members: Members


class Dataset(TypedDict, total=False):
    """`name`: the path from the project's root."""

    namespace: str
    name: Required[str]
    facets: DatasetFacets


class Event(TypedDict, total=False):
    """`eventType`: START, COMPLETE, FAIL, ABORT or OTHER; `eventTime`: ISO 8601."""

    run: Required[RunOfEvent]
    job: Required[Job]
    eventType: str
    eventTime: str
    inputs: list[Dataset]
    outputs: list[Dataset]
