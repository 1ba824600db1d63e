"""The newcomer's path, command for command: files nobody has seen -> gr2 init -> gr2 validate -> gr2 run with the smoke budget -> report.

    python bench/newcomer.py [FOLDER] [--only orders|lists]

`orders`: one CSV with unfamiliar column names, semicolons, ISO times and no titles. `lists`: a log with its items, and lists that were
shown with what was taken of them (retrieve.model: given). Each runs in a clone of this project in FOLDER (default: a temporary one, removed
after a success). Every command is printed with all it says, as a newcomer sees it. Exit code 1 where one fails, or there is no report. Some
minutes each.
"""

import argparse
import shutil
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support import logged_example, project_clone  # noqa: E402 (after sys.path)

CUSTOMERS, ARTICLES, ORDERS, KINDS = 150, 120, 30, 10


def main() -> None:
    parser = argparse.ArgumentParser(description="from files nobody has seen to a report")
    parser.add_argument("folder", nargs="?", type=Path, help="where the clones are made; it is left there")
    parser.add_argument("--only", choices=["orders", "lists"])
    options = parser.parse_args()
    folder = options.folder or Path(mkdtemp(prefix="newcomer-"))
    for name, path in {"orders": orders, "lists": lists}.items():
        if options.only in (None, name):
            root = project_clone.clone(folder / name)
            path(root, folder / f"{name}-files")
            report = root / "data/report/report.html"
            if not report.exists():
                sys.exit(f"{name}: no {report}")
            print(f"\n{name}: {report}, {report.stat().st_size / 1e6:.1f} MB\n")
    if not options.folder:
        shutil.rmtree(folder)


def orders(root: Path, files: Path) -> None:
    """A shop's orders: whoever bought of a kind buys of the same kind again, more often than not."""
    files.mkdir(parents=True)
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
    say(root, "gr2", "init", str(files), "--name", "shop")
    say(root, "gr2", "validate", "--profile", "smoke", "--profile", "shop")
    say(root, "gr2", "run", "--profile", "smoke", "--profile", "shop")


def lists(root: Path, files: Path) -> None:
    """The files of infra/examples/logged-slates, through gr2 init; the rest is that of the profile `logged` (docs/logged-slates.md)."""
    logged_example.write(files)
    say(root, "gr2", "init", str(files / "log"), "--name", "radio")
    profile = yaml.safe_load((root / "infra/profiles/logged.yaml").read_text(encoding="utf-8"))
    for key in ("source", "folder", "table"):  # what gr2 init has found
        del profile["ingest"][key]
    profile["retrieve"]["reads"] = str(files / "shown.csv")
    (root / "infra/profiles/lists.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    say(root, "gr2", "validate", "--profile", "smoke", "--profile", "radio", "--profile", "lists")
    say(root, "gr2", "run", "--profile", "smoke", "--profile", "radio", "--profile", "lists")


def say(root: Path, *command: str) -> None:
    """Runs `command` in the clone and prints it with all it says."""
    print(f"\n$ {' '.join(command)}", flush=True)
    began = time.monotonic()
    result = project_clone.call(root, sys.executable, "-m", "flows.cli", *command[1:], ok=False)
    print(f"{result.stdout}{result.stderr}[exit code {result.returncode}, {time.monotonic() - began:.0f} s]", flush=True)
    if result.returncode:
        sys.exit(1)


if __name__ == "__main__":
    main()
