"""`python -m stages.tools.validate PARAMS`: whether the stages can work with the data that these parameters name.

The data are ingested into a folder that is thrown away, by ingest's own code. Exit code 1 where a stage would fail.
"""

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from stages.ingest.ingest import ingest
from stages.ingest.params import IngestParams
from stages.retrieve.given.given import placed_slates
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import Outputs
from stages.shared.core.params import section_of
from stages.shared.core.yaml_text import load_yaml
from stages.tools.check_params import Params
from stages.tools.data_checks import DataCheck, checks, list_checks

SCRATCH = Path(".gr2") / "validate"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gr2 validate", description="A data set against what the stages need.")
    parser.add_argument("params", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        document = load_yaml(options.params.read_text(encoding="utf-8"), "params.yaml")
        params = Params(**{name: section_of(name, model, document, "params.yaml") for name, model in Params.__annotations__.items()})  # type: ignore[arg-type]
        # Readers tell their progress on standard output, which may be for JSON alone.
        with redirect_stdout(sys.stderr):
            metrics, found = validate(params)
    except StageError as error:
        sys.exit(f"gr2 validate: {error}")
    ok = all(check.level != "fault" for check in found)
    if options.json:
        print(json.dumps({"ok": ok, "data": metrics, "checks": [check._asdict() for check in found]}, ensure_ascii=False))
    else:
        print(*_lines(metrics, found), sep="\n")
    return 0 if ok else 1


def validate(params: Params) -> tuple[dict[str, Any], list[DataCheck]]:
    """metrics.json of the stage ingest (empty where it fails), and the checks."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=SCRATCH) as folder:
        outputs = Outputs("ingest", Path(folder))
        outputs.staging.mkdir()
        try:
            ingest(params.ingest, outputs)
        except StageError as error:
            return {}, [DataCheck("ingest", "fault", str(error), "data that ingest can read", "")]
        metrics = json.loads(outputs.path("metrics.json").read_text(encoding="utf-8"))
        log = pl.read_parquet(outputs.path("interactions.parquet"), columns=["user", "timestamp", "split"])
        found = checks(params, metrics, log, has_titles=has_titles(params.ingest))
        return metrics, found + (_lists(params, outputs) if params.retrieve.model == "given" else [])


def _lists(params: Params, outputs: Outputs) -> list[DataCheck]:
    tables = [pl.read_parquet(outputs.path(f"{name}.parquet")) for name in ("interactions", "items", "users")]
    try:
        placed, reading = placed_slates(params.retrieve, *tables)
    except StageError as error:
        return [DataCheck("lists", "fault", str(error), "lists that retrieve can read", "")]
    return list_checks(params.retrieve, placed, reading, params.evaluate.max_slates)


def has_titles(params: IngestParams) -> bool:
    return params.source != "table" or bool(params.table.title)


def _lines(metrics: dict[str, Any], found: list[DataCheck]) -> list[str]:
    words = {"ok": "ok     ", "warning": "WARNING", "fault": "FAULT  "}
    lines = [f"{metrics['raw']['source']}:"] if metrics else []
    for check in found:
        lines.append(f"{words[check.level]}  {check.name}: {check.found}")
        lines += [f"         needed: {check.needed}"] if check.level != "ok" and check.needed else []
        lines += [f"         -> {check.remedy}"] if check.level != "ok" and check.remedy else []
    return lines


if __name__ == "__main__":
    sys.exit(main())
