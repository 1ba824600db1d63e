"""OpenLineage's words: events, datasets and facets, the standard ones where there are, gr2_* beside them.

openlineage-python is imported inside: it takes a third of a second.
"""

import hashlib
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from tasks.dvc.dir_listing import Member
from tasks.ledger.lines import Event
from tasks.system.git import git_or_none

NAMESPACE = "gr2-pipeline"
PRODUCER = "https://openlineage.io/integration/gr2-pipeline"
SCHEMA = f"{PRODUCER}/facets"
LOCKS = ("requirements.lock", "requirements-gpu.lock")

Facets = dict[str, Any]


def custom_facet(name: str, values: Facets) -> Facets:
    """A facet of our own, as plain JSON."""
    return {"_producer": PRODUCER, "_schemaURL": f"{SCHEMA}/{name}", **values}


def run_event(
    kind: str,
    run_id: str,
    job: str,
    facets: Facets,
    inputs: Iterable[Any] = (),
    outputs: Iterable[Any] = (),
    job_facets: Facets | None = None,
) -> tuple[object, Event]:
    """The event for OpenLineage's transports, and as exact JSON: their serialiser drops nulls, which parameters may hold.

    `facets`: dicts are facets of our own, all else OpenLineage's.
    """
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.generated.base import RunFacet
    from openlineage.client.serde import Serde

    custom_facets = {name: facet for name, facet in facets.items() if isinstance(facet, dict)}
    # For the transports ours are facet objects, which carry _producer and _schemaURL as the standard ones do.
    wrapped: Facets = {name: RunFacet(producer=PRODUCER).with_additional_properties(**facet) for name, facet in custom_facets.items()}
    event = RunEvent(
        eventType=RunState(kind),
        eventTime=datetime.now(UTC).isoformat(),
        run=Run(runId=run_id, facets={**facets, **wrapped}),
        job=Job(namespace=NAMESPACE, name=job, facets=job_facets or {}),
        inputs=list(inputs),
        outputs=list(outputs),
        producer=PRODUCER,
    )
    record = Serde.to_dict(event)
    # The serialiser has dropped nulls from these; the record gets them as they were.
    record["run"].setdefault("facets", {}).update({name: custom_facet(name, facet) for name, facet in custom_facets.items()})
    return event, cast(Event, record)


def note_event(facts: Facets) -> Event:
    """An event of the record about itself, under the job "ledger"."""
    return run_event("OTHER", new_id(), "ledger", {"gr2_note": facts})[1]


def new_id() -> str:
    from openlineage.client.uuid import generate_new_uuid

    return str(generate_new_uuid())


def pipeline_run_id(flow_run: str) -> str | None:
    """The OpenLineage run of the whole pipeline is the Prefect flow run; None outside of one."""
    try:
        return str(UUID(flow_run))
    except ValueError:
        return None


def parent_facet(flow_run: str) -> Facets:
    from openlineage.client.generated.parent_run import Job, ParentRunFacet, Run

    run_id = pipeline_run_id(flow_run)
    return {"parent": ParentRunFacet(run=Run(runId=run_id), job=Job(NAMESPACE, "pipeline"), producer=PRODUCER)} if run_id else {}


def error(message: str) -> object:
    from openlineage.client.generated.error_message_run import ErrorMessageRunFacet

    return ErrorMessageRunFacet(message=message, programmingLanguage="python", producer=PRODUCER)


def engine_facet() -> object:
    from openlineage.client.generated.processing_engine_run import ProcessingEngineRunFacet

    return ProcessingEngineRunFacet(version=_version("dvc"), name="DVC", producer=PRODUCER)


def job_facets(root: Path, kind: str, revision: str | None) -> Facets:
    """`kind`: STAGE or PIPELINE."""
    from openlineage.client.generated.job_type_job import JobTypeJobFacet
    from openlineage.client.generated.source_code_location_job import SourceCodeLocationJobFacet

    facets: Facets = {"jobType": JobTypeJobFacet(processingType="BATCH", integration="GR2", jobType=kind, producer=PRODUCER)}
    url = _origin(root)
    if url and revision:
        location = SourceCodeLocationJobFacet(type="git", url=url, repoUrl=url, path="dvc.yaml", version=revision, producer=PRODUCER)
        facets["sourceCodeLocation"] = location
    return facets


def environment(root: Path) -> Facets:
    """The hash of what was to be installed, and the versions of what runs the stages."""
    locks = {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in LOCKS if (root / name).exists()}
    return {"locks": locks, "python": platform.python_version(), "dvc": _version("dvc"), "prefect": _version("prefect")}


def input_dataset(path: str, entry: Facets, listing: dict[str, str] | None = None) -> object:
    """An input by its content hash; `listing`: md5 by path of the files in a folder that no stage made."""
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.generated.base import DatasetFacet
    from openlineage.client.generated.input_statistics_input_dataset import InputStatisticsInputDatasetFacet

    size = InputStatisticsInputDatasetFacet(size=entry.get("size"), fileCount=entry.get("nfiles"), producer=PRODUCER)
    facets = _content(f"md5:{entry['hash']}")
    if listing is not None:
        facets["gr2_members"] = DatasetFacet(producer=PRODUCER).with_additional_properties(files=[[*row, None] for row in listing.items()])
    return InputDataset(NAMESPACE, path, facets=facets, inputFacets={"inputStatistics": size})


def output_dataset(path: str, entry: Facets, members: list[Member] | None) -> object:
    """An output by its content hash; `members`: [path in the folder, md5, bytes] of every file of a folder."""
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.generated.base import DatasetFacet
    from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet

    facets = _content(f"md5:{entry['hash']}")
    if members is not None:
        facets["gr2_members"] = DatasetFacet(producer=PRODUCER).with_additional_properties(files=members)
    size = OutputStatisticsOutputDatasetFacet(size=entry.get("size"), fileCount=entry.get("nfiles"), producer=PRODUCER)
    return OutputDataset(NAMESPACE, path, facets=facets, outputFacets={"outputStatistics": size})


def _content(name: str) -> Facets:
    from openlineage.client.generated.dataset_version_dataset import DatasetVersionDatasetFacet

    return {"version": DatasetVersionDatasetFacet(datasetVersion=name, producer=PRODUCER)}


@cache
def _origin(root: Path) -> str:
    """The URL of git's remote "origin", without a user and password in it."""
    url = git_or_none(root, "config", "--get", "remote.origin.url") or ""
    split_url = urlsplit(url)
    return urlunsplit(split_url._replace(netloc=split_url.netloc.rpartition("@")[2])) if split_url.scheme else url


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
