"""What each task of mid-training is worth in full-catalogue recall, over seeds: all tasks, each left out, and sequences alone.

    gr2 run --until tokenize --profile NAME         # once, in a clone: PROJECT
    python bench/midtrain_tasks.py FOLDER --project PROJECT [--seeds 7 8 9] [--users 2000] [--set steps=400] [--name midtrain_tasks]
        [--target train|valid|test] [--parallel 1] [--equal rows|sequence]
        [--shares sequence=0.4 caption=0.25 preference=0.1 persona=0.15 replay=0.1] [--arms sequence no-caption ...]

Each run is mid-training in FOLDER with the project's values, these shares and what --set says; finished runs are kept. no-TASK: all tasks
but one; TASK: that one alone. --equal rows (as without it): the number of rows is the same in all runs, so where a task is left out, the
others have more. --equal TASK: each run with this task sees as many rows of it as the run of all tasks, and is that much shorter. Recall
and NDCG are of the first item of the split --target of --users users, after all they took before it, by beam search over the trie;
intervals are over seeds and users, and differences are from `all`, of the same seeds and users. Nothing is learnt from but the base split.
"""

import argparse
import sys
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from midtrain_runs import Trained, interval, settings, shown, train, write

TASKS = ("sequence", "caption", "preference", "persona", "replay", "sorting", "judging")
SHARES = ["sequence=0.4", "caption=0.25", "preference=0.1", "persona=0.15", "replay=0.1"]


def shares_of(texts: list[str]) -> dict[str, float]:
    shares = {task: float(value) for task, _, value in (text.partition("=") for text in texts)}
    if unknown := set(shares) - set(TASKS):
        sys.exit(f"--shares {min(unknown)}: no task of mid-training; there are {', '.join(TASKS)}")
    return shares


def arm_shares(arm: str, shares: dict[str, float]) -> dict[str, float]:
    """The shares of the section midtrain in one arm."""
    if arm != "all" and arm.removeprefix("no-") not in shares:
        sys.exit(f"--arms {arm}: all, a task of --shares, or one with no- before it ({', '.join(shares)})")
    if arm == "all":
        chosen = shares
    elif arm.startswith("no-"):
        chosen = {task: share for task, share in shares.items() if task != arm.removeprefix("no-")}
    else:
        chosen = {arm: 1.0}
    return {f"{task}_share": chosen.get(task, 0.0) for task in TASKS}


def arm_steps(plan: dict[str, float], everything: dict[str, float], task: str, steps: int) -> int:
    """Steps in which a run of the shares `plan` sees as many rows of `task` as one of `everything` does in `steps`."""
    own, whole = (shares.get(f"{task}_share", 0.0) / sum(shares.values()) for shares in (plan, everything))
    return round(steps * whole / own) if own else steps


def _project_steps(project: Path) -> int:
    if not (params := project / "params.yaml").exists():
        sys.exit(f"{params}: not there; --project is the folder of a project")
    return int(yaml.safe_load(params.read_text(encoding="utf-8"))["midtrain"]["steps"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", type=Path, default=Path(), help="with data/ingest and data/tokenize; its params.yaml counts")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--shares", nargs="+", default=SHARES, metavar="TASK=SHARE")
    parser.add_argument("--arms", nargs="+", default=[], help="all, TASK or no-TASK; by default all, sequence and each task left out")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the section midtrain")
    parser.add_argument("--target", choices=["train", "valid", "test"], default="train")
    parser.add_argument(
        "--equal", choices=["rows", *TASKS], default="rows", help="what all runs see as much of: rows, or rows of this task"
    )
    parser.add_argument("--parallel", type=int, default=1, help="runs side by side, as on a GPU that one leaves idle")
    parser.add_argument("--name", default="midtrain_tasks", help="of the two files in bench/results")
    options = parser.parse_args()
    shares = shares_of(options.shares)
    arms = list(dict.fromkeys(["all", *(options.arms or ["sequence", *(f"no-{task}" for task in shares)])]))
    plans: dict[str, dict[str, float]] = {arm: arm_shares(arm, shares) for arm in arms}
    given = settings(options.set)
    steps = int(given["steps"] if "steps" in given else _project_steps(options.project))
    lengths = {arm: steps if options.equal == "rows" else arm_steps(plans[arm], plans["all"], options.equal, steps) for arm in arms}
    with ThreadPoolExecutor(options.parallel) as pool:
        waiting: dict[str, list[Future[Trained]]] = {arm: [] for arm in arms}
        for seed in options.seeds:
            for arm, plan in plans.items():
                folder, values = options.folder / f"{arm}-seed{seed}", {**given, **plan, "seed": seed, "steps": lengths[arm]}
                waiting[arm].append(pool.submit(train, options.project, folder, values, options.users, options.target))
        # A run that fails is seen at once, not after all others.
        for future in as_completed([future for futures in waiting.values() for future in futures]):
            if future.exception():
                pool.shutdown(wait=False, cancel_futures=True)
            future.result()
        runs = {arm: [future.result() for future in futures] for arm, futures in waiting.items()}
    header = ["tasks", "R@5", "R@10", "NDCG@5", "NDCG@10", "R@10 minus all", "free SIDs valid"]
    header += ["SID to whole title", "title to whole SID", "steps"]
    rows, figures = [], {}
    for arm, own in runs.items():
        cells = [shown(interval(own, metric, cut)) for metric in ("recall", "ndcg") for cut in (5, 10)]
        cells.append("" if arm == "all" else shown(interval(own, "recall", 10, runs["all"]), signed=True))
        cells.append(f"{np.mean([(run.found.free_B >= 0).mean() for run in own]):.1%}")
        for probe in ("sid_to_title_exact", "caption_to_sid_exact"):
            cells.append(f"{np.mean([run.metrics['probes'][probe] for run in own]):.1%}")
        rows.append([arm, *cells, f"{lengths[arm]:,}"])
        entry: dict[str, Any] = {"shares": plans[arm], "seconds": [run.seconds for run in own], "metrics": [run.metrics for run in own]}
        figures[arm] = entry | {"recall@10": interval(own, "recall", 10), "ndcg@5": interval(own, "ndcg", 5)}
    users = len(runs["all"][0].found.users)
    title = f"Tasks of mid-training: next item of {users} users in the whole catalogue (by chance R@10 {runs['all'][0].found.chance:.4f})"
    write(options.name, title, header, rows, {"seeds": options.seeds, "arms": figures})


if __name__ == "__main__":
    main()
