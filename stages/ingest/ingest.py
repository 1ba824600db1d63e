"""A log of interactions and its item texts -> the three tables every later stage starts from, the rejected rows, and the data card."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from stages.ingest.build.interactions import Interactions, interactions, with_text
from stages.ingest.build.items import item_table, usable_items
from stages.ingest.build.quarantine import quarantine
from stages.ingest.metrics import IngestMetrics
from stages.ingest.params import IngestParams
from stages.ingest.readers.raw import RawLog
from stages.ingest.report.card import data_card
from stages.ingest.report.describe import describe
from stages.ingest.sources.source import read_source
from stages.ingest.sources.world import write_world
from stages.shared.core.outputs import Outputs
from stages.shared.core.schemas import INTERACTIONS, ITEMS, USERS, write_table


def ingest(params: IngestParams, outputs: Outputs) -> None:
    # The scratch tables may be as large as the log: on the disk of the outputs, not in a /tmp that may be memory.
    with TemporaryDirectory(dir=outputs.staging, prefix="scratch-") as scratch:
        build(read_source(params, Path(scratch)), params, outputs)


def build(raw: RawLog, params: IngestParams, outputs: Outputs) -> None:
    """All that comes after reading. One source or another makes no difference here."""
    usable, untitled = usable_items(raw, params.missing_items)
    rejected = quarantine(raw, usable, untitled, params.max_bad_share, outputs.path("quarantine.parquet"), params.missing_items)
    log = interactions(raw, usable["source_id"], params)
    with ThreadPoolExecutor(1) as pool:  # a long log is written while the rest is made
        writing = pool.submit(_write_interactions, log, outputs.path("interactions.parquet"))
        items = item_table(usable, log.item_ids, raw.category_word)
        metrics = describe(raw, items, log, rejected, params)
        if params.missing_items == "id":
            metrics["items_called_by_id"] = int((usable["row"] == 0).sum())  # they stand in no row
        write_table(items, outputs.path("items.parquet"), ITEMS)
        write_table(log.users, outputs.path("users.parquet"), USERS)
        writing.result()
    write_world(params, log.users, outputs.path("world.safetensors"))
    outputs.path("card.md").write_text(data_card(metrics), encoding="utf-8")
    outputs.metrics(metrics, IngestMetrics)


def _write_interactions(log: Interactions, path: Path) -> None:
    write_table(with_text(log.table), path, INTERACTIONS)
