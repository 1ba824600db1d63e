"""The fault campaign: strikes runs of the pipeline at random moments, runs them again, and looks whether anything was lost or wrong.

python bench/faults.py --project toy|nodes|smoke --faults N --seed S --out FILE.jsonl    a line a trial; trials already there are left out
python bench/faults.py --report FILE.jsonl... > docs/fault-campaign.md
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fault_kinds import CONTROL, KINDS, Kind, can_mount, why_not
from fault_project import PROJECTS, prefect_server
from fault_table import table
from fault_trial import Trial

INSIDE = "GR2_FAULTS_INSIDE"


def main() -> int:
    options = _options()
    if options.report:
        print(
            table([json.loads(line) for file in options.report for line in file.read_text(encoding="utf-8").splitlines()], options.report)
        )
        return 0
    if INSIDE not in os.environ and can_mount():  # mounts of the trials go with this process
        os.execvpe("unshare", ["unshare", "--mount", sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    work = Path(options.work or tempfile.mkdtemp(prefix="faults-")).resolve()
    folder = work / options.project
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DVC_SITE_CACHE_DIR"] = str(folder / "site")  # what DVC remembers of files, for this process: nothing
    project = PROJECTS[options.project](folder)
    server = nullcontext("") if options.project == "nodes" else prefect_server.serve(folder / "prefect")
    with server as url:
        try:
            return _campaign(options, project, folder, url)
        finally:
            project.close()


def _campaign(options: argparse.Namespace, project: Any, folder: Path, url: str) -> int:
    project_kinds = [kind for kind in KINDS if options.project in kind.where]
    done = {line["trial"]: line for line in _lines(options.out)}
    typical = {line["stage"]: {**line["lives_s"], "run": line["run_s"]} for line in done.values() if line["kind"] == CONTROL.name}
    violations = 0
    for number, kind, stage in plan(project.stages, project_kinds, options.faults):
        if number in done or 0 <= number < options.first or (options.kind and options.kind not in kind.name and kind is not CONTROL):
            continue
        line: dict[str, Any] = {"project": project.name, "trial": number, "seed": options.seed, "kind": kind.name, "stage": stage}
        if reason := why_not(kind):
            line |= {"outcome": "skipped", "hit": reason, "violations": []}
        else:
            for attempt in range(4):  # a run that ended before the fault is none
                rng = random.Random(f"{options.seed}/{project.name}/{number}/{attempt}")
                longer = 2 if kind.own_server else 1  # its server has to start first
                sooner = {what: longer * seconds / 2**attempt for what, seconds in typical.get(stage, {"run": 20.0}).items()}
                trial = Trial(project, kind, stage, number, rng, sooner, folder / "trial", url)
                line |= trial.run()
                if line["hit"]:
                    break
        if kind is CONTROL:
            typical[stage] = {**line["lives_s"], "run": line["run_s"]}
        if line["violations"]:
            violations += 1
            line["kept"] = str(trial.keep(folder / f"kept-{options.seed}-{number}"))
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(
            f"{time.strftime('%H:%M:%S')} {number:4} {kind.name} | {stage} | {line['hit']} | {line['outcome']} {line['violations']}",
            flush=True,
        )
    return 1 if violations else 0


def plan(stages: tuple[str, ...], kinds: list[Kind], faults: int) -> list[tuple[int, Kind, str]]:
    """Undisturbed runs first (negative numbers), then all kinds at one stage after the other."""
    controls = [(index - len(stages), CONTROL, stage) for index, stage in enumerate(stages)]
    count = len(kinds)
    return [*controls, *((number, kinds[number % count], stages[(number // count) % len(stages)]) for number in range(faults))]


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", choices=PROJECTS)
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="leave out the trials before this one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("faults.jsonl"))
    parser.add_argument("--work", help="where projects are made, and kept when something was wrong (default: a temporary folder)")
    parser.add_argument("--kind", help="only kinds with this in their name")
    parser.add_argument("--report", nargs="+", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
