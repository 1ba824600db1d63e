"""Ingest and plain pandas on a synthetic log in the form of MovieLens-25M: seconds, peak memory, and whether both agree.

    python bench/ingest_scale.py [--rows 20000000] [--keep]   # bench/results/ingest_scale.md
    python bench/ingest_scale.py --rows 100000000 --folder DISK --limit-gb 8   # bench/results/ingest_scale_100m.md; 12 GB of disk

Each side is its own process; one that holds more memory than --limit-gb is ended, and the table says so. The file is written for whole
millions of rows alone. Both read ratings.csv and movies.csv, drop repeats, take the 5-core, order, split leave-one-out,
number the ids and write Parquet; ingest also checks every row, cleans the titles, checks for leaks and writes the data card.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results"
ROWS, USERS, ITEMS = 20_000_000, 160_000, 60_000  # fewer rows: users and items in proportion
MIN_USER = MIN_ITEM = MIN_BASE = 5
BASE_SHARE = 0.45
DISK_BYTES = 120  # a row: the log, ingest's scratch tables, and what both sides write
EVERY_S = 0.05  # how often the memory of a side is looked at
PARAMS = f"""\
ingest:
  source: movielens-25m
  folder: raw
  min_interactions: {MIN_USER}
  min_item_interactions: {MIN_ITEM}
  min_base: {MIN_BASE}
  base_share: {BASE_SHARE}
  keep_items: interacted
  split: leave_one_out
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="ingest and pandas: seconds and peak memory")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--keep", action="store_true", help="leave the scratch folder")
    parser.add_argument("--folder", type=Path, help="where the scratch folder is made; default: that of temporary files")
    parser.add_argument("--limit-gb", type=float, help="a side that holds more resident memory (10**9 bytes) is ended; default: no limit")
    parser.add_argument("--make", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pandas", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--summary", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        make_log(args.make, args.rows)
    elif args.pandas:
        with_pandas(args.pandas)
    elif args.summary:
        print(json.dumps(summary(args.summary)))
    else:
        compare(args.rows, args.keep, args.folder, args.limit_gb)


def compare(rows: int, keep: bool, parent: Path | None, limit_gb: float | None) -> None:
    """This process stays small, since a child's peak memory starts at its parent's size."""
    folder = Path(mkdtemp(prefix="ingest-scale-", dir=parent))
    free, needed = shutil.disk_usage(folder).free, rows * DISK_BYTES
    if free < needed:
        folder.rmdir()
        sys.exit(f"{folder.parent}: {free / 1e9:.0f} GB free, {rows:,} rows take {needed / 1e9:.0f}; name another disk: --folder")
    script = [sys.executable, str(Path(__file__).resolve()), "--rows", str(rows)]
    measured([*script, "--make", str(folder)], folder)
    (folder / "params.yaml").write_text(PARAMS, encoding="utf-8")
    runs = {
        "ingest": (measured([sys.executable, "-m", "stages.ingest"], folder, limit_gb), folder / "data/ingest"),
        "pandas": (measured([*script, "--pandas", str(folder)], folder, limit_gb), folder / "pandas"),
    }
    summaries = {}
    lines = ["| | seconds | peak memory, MB | users | items | interactions | checksum |", "|---|---|---|---|---|---|---|"]
    for name, ((seconds, peak), output_folder) in runs.items():
        if not seconds:
            lines.append(f"| {name} | ended: not enough memory | {peak:,.0f} | | | | |")
            continue
        summed = subprocess.run([*script, "--summary", str(output_folder)], check=True, capture_output=True, text=True)
        totals = summaries[name] = json.loads(summed.stdout)
        counts = " | ".join(f"{totals[key]:,}" for key in ("users", "items", "interactions"))
        lines.append(f"| {name} | {seconds:.1f} | {peak:,.0f} | {counts} | `{totals['checksum']}` |")
    size = (folder / "raw/ratings.csv").stat().st_size / 1e6
    limit = f" --limit-gb {limit_gb:g}" if limit_gb else ""
    text = "\n".join(
        [
            "# Ingest at scale",
            "",
            f"`python bench/ingest_scale.py --rows {rows}{limit}` on {os.cpu_count()} cores, one run each: a made-up log of {rows:,} rows",
            f"({size:,.0f} MB) in the form of MovieLens-25M. The checksum is over (user, item, split) of every interaction, by source ids.",
            "",
            *lines,
            "",
        ]
    )
    print(text)
    if keep:
        print(f"left in {folder}")
    else:
        shutil.rmtree(folder)
    if len({json.dumps(one) for one in summaries.values()}) > 1:
        sys.exit("ingest and pandas disagree")
    if "ingest" not in summaries:
        sys.exit("ingest needs more memory")
    if rows % 10**6:
        return
    RESULTS.mkdir(exist_ok=True)
    name = "ingest_scale.md" if rows == ROWS else f"ingest_scale_{rows // 10**6}m.md"
    (RESULTS / name).write_text(text, encoding="utf-8")


def measured(command: list[str], folder: Path, limit_gb: float | None = None) -> tuple[float, float]:
    """Runs the command in `folder`: wall seconds, and the most memory (MB) that it held. 0 seconds where it was ended for want of memory,
    by this script or the kernel."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        if limit_gb and _resident(process.pid) > limit_gb * 1e9:
            process.kill()
        time.sleep(EVERY_S)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode == -9:
        return 0.0, usage.ru_maxrss / 1024
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed in {folder}")
    return seconds, usage.ru_maxrss / 1024


def _resident(pid: int) -> int:
    """Bytes; 0 of a process that has just ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def make_log(folder: Path, rows: int) -> None:
    """ratings.csv in the order of users and films, as MovieLens has it; popularity by Zipf and Mandelbrot, lengths log-normal;
    seeded."""
    import numpy as np
    import polars as pl

    users, items = max(200, USERS * rows // ROWS), max(100, ITEMS * rows // ROWS)
    rng = np.random.default_rng(7)
    raw = folder / "raw"
    raw.mkdir()
    titles = [f"{item},Film {item} ({1950 + item % 70}),Drama|Comedy\n" for item in range(1, items + 1)]
    (raw / "movies.csv").write_text("movieId,title,genres\n" + "".join(titles), encoding="utf-8")
    share_I = np.cumsum(1 / (np.arange(items) + 100.0))
    share_I /= share_I[-1]
    film_I = rng.permutation(items) + 1
    weight_U = rng.lognormal(0, 1, users)
    lengths_U = rng.multinomial(rows, weight_U / weight_U.sum())
    with (raw / "ratings.csv").open("wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        for first in range(0, users, 10_000):
            user = np.repeat(np.arange(first, min(first + 10_000, users)) + 1, lengths_U[first : first + 10_000])
            film = film_I[np.searchsorted(share_I, rng.random(len(user)))]
            order = np.lexsort((film, user))
            columns = {
                "userId": user[order],
                "movieId": film[order],
                "rating": rng.integers(1, 11, len(user)) / 2,
                "timestamp": rng.integers(789_652_009, 1_574_327_703, len(user)) // 60 * 60,  # by the minute: ties
            }
            pl.DataFrame(columns).write_csv(file, include_header=False)


def with_pandas(folder: Path) -> None:
    import numpy as np
    import pandas as pd

    log = pd.read_csv(folder / "raw/ratings.csv").rename(columns={"userId": "user", "movieId": "item"})
    films = pd.read_csv(folder / "raw/movies.csv")
    log = log[log["item"].isin(films["movieId"])]
    log = log.sort_values(["user", "timestamp"], kind="stable").drop_duplicates(["user", "item"])
    while True:
        enough = (log.groupby("user")["item"].transform("size") >= MIN_USER) & (log.groupby("item")["user"].transform("size") >= MIN_ITEM)
        if enough.all():
            break
        log = log[enough]
    position = log.groupby("user").cumcount()
    length = log.groupby("user")["item"].transform("size")
    base = np.minimum(np.maximum(np.floor((length - 2) * BASE_SHARE), MIN_BASE), length - 2)
    code = (position >= base).astype(int) + (position >= length - 2) + (position >= length - 1)
    code[length < MIN_BASE + 2] = 0
    log["split"] = np.array(["base", "train", "valid", "test"])[code]
    log["position"] = position
    users, items = np.sort(log["user"].unique()), np.sort(log["item"].unique())
    out = folder / "pandas"
    out.mkdir()
    for name, ids in (("user", users), ("item", items)):
        pd.DataFrame({name: np.arange(len(ids)), "source_id": ids.astype(str)}).to_parquet(out / f"{name}s.parquet")
        log[name] = np.searchsorted(ids, log[name])
    log[["user", "item", "position", "timestamp", "split"]].to_parquet(out / "interactions.parquet")


def summary(folder: Path) -> dict[str, int | str]:
    """Counts, and a sum over rows of a mixed (user, item, split) that does not depend on the order of the rows."""
    import numpy as np
    import polars as pl

    log = pl.read_parquet(folder / "interactions.parquet", columns=["user", "item", "split"])
    tables = {name: pl.read_parquet(folder / f"{name}s.parquet", columns=[name, "source_id"]).sort(name) for name in ("user", "item")}
    mixed = log["split"].replace_strict({"base": 0, "train": 1, "valid": 2, "test": 3}, return_dtype=pl.UInt8).to_numpy().astype(np.uint64)
    for name, table in tables.items():
        source_ids = table["source_id"].cast(pl.UInt64).to_numpy()[log[name].to_numpy()]
        mixed = (mixed ^ source_ids) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    checksum = int(mixed.sum(dtype=np.uint64))
    return {"users": tables["user"].height, "items": tables["item"].height, "interactions": log.height, "checksum": f"{checksum:016x}"}


if __name__ == "__main__":
    main()
