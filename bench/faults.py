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
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from fault_kinds import CONTROL, KINDS, Kind, can_mount, series, why_not
from fault_project import PROJECTS, prefect_server
from fault_table import table
from fault_trial import Trial

INSIDE = "GR2_FAULTS_INSIDE"
PATIENCE_S = 1200  # on a machine that has much else to do
# Nothing is scheduled here, and the server's loops would take a twelfth of a core.
UNUSED = ("SCHEDULER", "LATE_RUNS", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP", "FOREMAN", "TRIGGERS", "EVENT_PERSISTER", "REPOSSESSOR")


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
    with nullcontext("") if options.project == "nodes" else _server(folder / "prefect") as url:
        try:
            return _campaign(options, project, folder, url)
        finally:
            project.close()


def _server(folder: Path) -> AbstractContextManager[str]:
    calm = {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in UNUSED}
    return prefect_server.serve(folder, patience_s=PATIENCE_S, **calm)


def _campaign(options: argparse.Namespace, project: Any, folder: Path, url: str) -> int:
    project_kinds = [kind for kind in KINDS if options.project in kind.where and not (options.without and options.without in kind.name)]
    done = {line["trial"]: line for line in _lines(options.out)}
    typical = {line["stage"]: {**line["lives_s"], "run": line["run_s"]} for line in done.values() if line["kind"] == CONTROL.name}
    assumed = {"run": options.run_s or 20.0, **({"stage": options.run_s / 3, "dvc": options.run_s / 2} if options.run_s else {})}
    violations = 0
    for number, kind, stage in plan(project.stages, project_kinds, options.faults):
        if number in done or 0 <= number < options.first or (options.kind and options.kind not in kind.name and kind is not CONTROL):
            continue
        if (options.stages and stage not in options.stages.split(",")) or (options.run_s and kind is CONTROL):
            continue
        line: dict[str, Any] = {"project": project.name, "trial": number, "seed": options.seed, "kind": kind.name, "stage": stage}
        if reason := why_not(kind):
            line |= {"outcome": "skipped", "hit": reason, "violations": []}
        else:
            for attempt in range(4):  # a run that ended before the fault is none
                rng = random.Random(f"{options.seed}/{project.name}/{number}/{attempt}")
                longer = 2 if kind.own_server else 1  # its server has to start first
                sooner = {what: longer * seconds / 2**attempt for what, seconds in typical.get(stage, assumed).items()}
                more = () if kind is CONTROL else series(rng, project_kinds, options.series - 1)
                trial = Trial(project, kind, stage, number, rng, sooner, folder / "trial", url, more)
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
        what = f"{kind.name} | {stage} | {line['hit']} | {len(line.get('more', []))} more | {line['outcome']} {line['violations']}"
        print(f"{time.strftime('%H:%M:%S')} {number:4} {what}", flush=True)
    return 1 if violations else 0


def plan(stages: tuple[str, ...], kinds: list[Kind], faults: int) -> list[tuple[int, Kind, str]]:
    """Undisturbed runs first (negative numbers); then the kinds and the stages in turn, until every kind was at every stage."""
    controls = [(index - len(stages), CONTROL, stage) for index, stage in enumerate(stages)]
    count = len(kinds)
    faults_in_turn = [(*divmod(number, count), number) for number in range(faults)]
    return [*controls, *((number, kinds[kind], stages[(turn + kind) % len(stages)]) for turn, kind, number in faults_in_turn)]


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
    parser.add_argument("--without", metavar="WORDS", help="no kinds with this in their name")
    parser.add_argument(
        "--series", type=int, default=1, metavar="N", help="up to N faults in one trial, one a run; then the run that mends"
    )
    parser.add_argument(
        "--run-s", type=float, metavar="S", help="take a run to last S seconds, in place of undisturbed runs that measure it"
    )
    parser.add_argument("--stages", metavar="A,B", help="only trials at these; so several processes share a campaign, each with its --work")
    parser.add_argument("--report", nargs="+", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
