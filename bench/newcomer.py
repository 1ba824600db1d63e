"""The newcomer's path, command for command: files nobody has seen -> gr2 init -> gr2 validate -> gr2 run with the smoke budget -> report.

    python bench/newcomer.py [FOLDER] [--only orders|impressions|lists] [--until init|validate]

- orders: one CSV with unfamiliar column names, semicolons, ISO times and no titles;
- impressions: one CSV again, a row an article that was shown, with its place and whether it was clicked; there is no other log;
- lists: a log with its items, and lists that were shown with what was taken of them, in one folder; gr2 init has a question, and gets the
  answer.

Each runs in a clone of this project in FOLDER (default: a temporary one, removed after a success); a clone that is there is gone on with.
Every command is printed with all it says, as a newcomer sees it. Exit code 1 where one fails, or there is no report. Some minutes each.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import logged_example, project_clone  # noqa: E402 (after sys.path)

CUSTOMERS, ARTICLES, ORDERS, KINDS = 150, 120, 30, 10
LONGEST_COMMAND_S = 3600  # on a machine with other work
UNDECIDED = 2  # exit code of gr2 init that has a question


def main() -> None:
    parser = argparse.ArgumentParser(description="from files nobody has seen to a report")
    parser.add_argument("folder", nargs="?", type=Path, help="where the clones are made; it is left there")
    parser.add_argument("--only", choices=[*PATHS])
    parser.add_argument("--until", choices=["init", "validate", "run"], default="run", help="the last command of a path")
    options = parser.parse_args()
    project_clone.TIMEOUT_S = LONGEST_COMMAND_S
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "600")
    folder = (options.folder or Path(mkdtemp(prefix="newcomer-"))).resolve()
    for name in [options.only] if options.only else PATHS:
        walk(name, folder, options.until)
    if not options.folder:
        shutil.rmtree(folder)


def walk(name: str, folder: Path, until: str) -> None:
    root, files = folder / name, folder / f"{name}-files"
    if not (root / ".git").exists():
        project_clone.clone(root)
    files.mkdir(exist_ok=True)
    write, answers = PATHS[name]
    write(files)
    if answers:  # what is to be said is what gr2 init asks for
        say(root, "gr2", "init", str(files), "--name", name, expected=UNDECIDED)
    say(root, "gr2", "init", str(files), "--name", name, *answers)
    if until == "init":
        return
    say(root, "gr2", "validate", "--profile", "smoke", "--profile", name)
    if until == "validate":
        return
    say(root, "gr2", "run", "--profile", "smoke", "--profile", name)
    report = root / "data/report/report.html"
    if not report.exists():
        sys.exit(f"{name}: no {report}")
    print(f"\n{name}: {report}, {report.stat().st_size / 1e6:.1f} MB\n")


def orders(files: Path) -> None:
    """A shop's orders: whoever bought of a kind buys of the same kind again, more often than not."""
    rng = np.random.default_rng(5)
    lines = ["kunde;artikelnr;gekauft_am;menge"]
    for customer in range(CUSTOMERS):
        moment, kind, bought = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(hours=int(rng.integers(0, 5000))), 0, set[int]()
        while len(bought) < ORDERS:
            moment += timedelta(hours=int(rng.integers(1, 200)))
            kind = int(rng.integers(KINDS)) if rng.random() < 0.3 else kind
            left = [article for article in range(ARTICLES) if article not in bought and (article % KINDS == kind or rng.random() < 0.05)]
            if left:
                bought.add(article := int(rng.choice(left)))
                lines.append(f"K-{customer:04};A{article:05};{moment:%Y-%m-%dT%H:%M:%S};{rng.integers(1, 4)}")
    (files / "bestellungen.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def impressions(files: Path) -> None:
    """The lists of infra/examples/logged-slates, a row an item."""
    lines = ["anfrage;kundin;zeit;artikel;platz;geklickt"]
    for number, (listener, shown_at, shown, taken, _) in enumerate(logged_example.plays_and_slates()[1]):
        for place, item in enumerate(str(shown).split(), 1):
            lines.append(f"Q{number:05};{listener};{str(shown_at)[:-1]};{item};{place};{int(item in str(taken).split())}")
    (files / "ausgespielt.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def lists(files: Path) -> None:
    """The files of infra/examples/logged-slates, side by side."""
    logged_example.write(files / "made")
    for path in [*(files / "made/log").iterdir(), files / "made/shown.csv"]:
        path.replace(files / path.name)
    shutil.rmtree(files / "made")


PATHS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "orders": (orders, ()),
    "impressions": (impressions, ()),
    "lists": (lists, ("--order", "shown")),
}


def say(root: Path, *command: str, expected: int = 0) -> None:
    """Runs `command` in the clone and prints it with all it says. Ends this script where its exit code is not the expected one."""
    print(f"\n$ {' '.join(command)}", flush=True)
    began = time.monotonic()
    result = project_clone.call(root, sys.executable, "-m", "flows.cli", *command[1:], ok=False)
    print(f"{result.stdout}{result.stderr}[exit code {result.returncode}, {time.monotonic() - began:.0f} s]", flush=True)
    if result.returncode != expected:
        sys.exit(1)


if __name__ == "__main__":
    main()
