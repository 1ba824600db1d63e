"""What `gr2 serve` does under load: open-loop arrivals on loopback, so that a slow answer does not make the next request come later.

    python bench/serving_load.py FOLDER --mode one-pass --rates 10 25 50 100 200 --seconds 30
    python bench/serving_load.py FOLDER --rates 0.5 1 2 4 8 --seconds 60
    python bench/serving_load.py FOLDER --mode adaptive --one-pass-model FOLDER --rates 10 50 --seconds 30
    python bench/serving_load.py FOLDER --rates 64 --seconds 600             # past the capacity, ten minutes: is memory bounded?
    python bench/serving_load.py FOLDER --rates 8 --seconds 90 --kill-engine-at 20 --kill-engine-at 50    # kill -9, twice

FOLDER: a finished run. The server is started there, with whatever further arguments are given, as `--queue 16`; their paths are seen from
there. Requests are the run's test slates (history and ten candidates by the data's ids, without scores), drawn with a fixed seed, at
Poisson times of each rate (requests a second). Seconds are counted from when a request was due, not from when it was sent.
Every answer is checked: 200 with all items once, or 429 with Retry-After.
Printed as a table: reranked a second, percentiles of reranked answers in ms, share shed (429), fallbacks by reason, and the resident memory
(MiB) of the front and of the engine's processes, once a second: the first, the most, the last. Generator, front and engine share the
machine's cores.

--kill-engine-at, repeatable: kill -9 of the engine so many seconds into each rate. Then every slate is first asked alone, undisturbed, and
each rate is run twice, without kills and with them. A second table says what became of every request: right (the order that the same slate
got undisturbed), another order, marked a fallback with the incoming order whole, shed, or WRONG (anything else: not all items once, or a
fallback in another order, or no answer). Another order without kills is what batches do, in which sums round otherwise; a kill must add
none, and nothing may be WRONG: then the exit code is 1.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil

MIB = 2**20
START_S, TIMEOUT_S = 600, 120
ENGINE = "stages.serve.engine.worker"
HEAD = "| offered/s | reranked/s | p50 ms | p95 ms | p99 ms | shed | fallbacks | front MiB (first, most, last) | engine MiB (first, most, last) |"
KILL_HEAD = "| offered/s | engine killed | requests | right | another order | fallbacks | shed | WRONG |"
Order = tuple[int, ...]


@dataclass
class Load:
    """Of one rate. seconds: of the answers with a new order; memory: (front, engine) in MiB, once a second. orders: (place of the body,
    order) of each of them. killed: engines that a signal was sent to."""

    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)
    orders: list[tuple[int, Order]] = field(default_factory=list)
    killed: int = 0

    def wrong(self) -> int:
        """Requests without a whole answer, in a new order or marked."""
        return sum(times for name, times in self.outcomes.items() if name not in ("reranked", "shed", *FALLBACKS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a finished run")
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 2.0, 4.0], help="requests a second")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each rate")
    parser.add_argument("--mode", default="reasoning")
    parser.add_argument("--kill-engine-at", type=float, action="append", default=[], metavar="SECONDS", help="kill -9 of the engine; repeatable")
    parser.add_argument("--seed", type=int, default=7)
    options, of_server = parser.parse_known_args()
    bodies = requests_of(options.folder)
    command = [sys.executable, "-m", "stages.serve.http.server", "--port", "0", "--mode", options.mode, *of_server]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    server = subprocess.Popen(command, cwd=options.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout
        found = re.search(r"http://\S+", server.stdout.readline())
        if not found:
            sys.exit("the server did not start; start it by hand to see why: " + " ".join(command))
        print(f"mode {options.mode}, {options.seconds:g} s a rate, {psutil.cpu_count()} cores, {len(bodies)} different requests\n")
        print(HEAD + "\n" + HEAD.count(" | ") * "|---" + "|---|", flush=True)
        loads: list[tuple[float, Load]] = []
        for rate in options.rates:
            for kills in [[], options.kill_engine_at] if options.kill_engine_at else [[]]:
                load = asyncio.run(run(found[0], server.pid, bodies, rate, options, kills))
                print(row(rate, load, options.seconds), flush=True)
                loads.append((rate, load))
        if options.kill_engine_at:
            undisturbed = asyncio.run(asked_alone(found[0], bodies, {place for _, load in loads for place, _ in load.orders}))
            print("\n" + KILL_HEAD + "\n" + KILL_HEAD.count(" | ") * "|---" + "|---|")
            for rate, load in loads:
                print(kill_row(rate, load, undisturbed), flush=True)
        if any(load.wrong() for _, load in loads):
            sys.exit("some requests got no whole answer; see the fallbacks of the table")
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(START_S)
        server.kill()


def requests_of(folder: Path) -> list[dict[str, Any]]:
    ids = pl.read_parquet(folder / "data/ingest/items.parquet")["source_id"].to_list()
    slates = pl.read_parquet(folder / "data/retrieve/slates.parquet").filter(pl.col("split") == "test").select("history", "candidates")
    return [{"history": [ids[item] for item in past], "items": [ids[item] for item in asked]} for past, asked in slates.iter_rows() if past]


async def run(address: str, pid: int, bodies: list[dict[str, Any]], rate: float, options: argparse.Namespace) -> Load:
    load, rng = Load(), np.random.default_rng(options.seed)
    due = np.cumsum(rng.exponential(1 / rate, int(rate * options.seconds * 2) + 10))
    due = due[due < options.seconds]
    chosen = rng.integers(len(bodies), size=len(due))
    watch = asyncio.create_task(watched(pid, load))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=address, timeout=TIMEOUT_S, limits=limits) as client:
        begin, asked = time.monotonic(), []
        if options.kill:
            asyncio.get_running_loop().call_later(options.kill, kill_engine, pid)
        for moment, place in zip(due.tolist(), chosen.tolist(), strict=True):
            await asyncio.sleep(max(0.0, begin + moment - time.monotonic()))
            asked.append(asyncio.create_task(ask(client, bodies[place], begin + moment, load)))
        await asyncio.gather(*asked)
    watch.cancel()
    return load


async def ask(client: httpx.AsyncClient, body: dict[str, Any], due: float, load: Load) -> None:
    try:
        answer = await client.post("/rank", json=body)
    except httpx.HTTPError as error:
        load.outcomes[type(error).__name__] += 1
        return
    if answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1:
        load.outcomes["shed"] += 1
        return
    found = answer.json()
    if answer.status_code != 200 or sorted(item["index"] for item in found["items"]) != list(range(len(body["items"]))):
        load.outcomes["WRONG"] += 1
    elif found["fallback"]:
        in_order = [item["index"] for item in found["items"]] == list(range(len(body["items"])))
        load.outcomes[found["fallback"] if in_order else "WRONG"] += 1
    else:
        load.outcomes["reranked"] += 1
        load.seconds.append(time.monotonic() - due)


async def watched(pid: int, load: Load) -> None:
    while True:
        engine = 0.0
        with suppress(psutil.Error):
            for one in psutil.Process(pid).children(recursive=True):
                engine += one.memory_info().rss / MIB
        load.memory.append((psutil.Process(pid).memory_info().rss / MIB, engine))
        await asyncio.sleep(1.0)


def kill_engine(pid: int) -> None:
    for one in psutil.Process(pid).children():
        if ENGINE in one.cmdline():
            one.send_signal(signal.SIGKILL)


def row(rate: float, load: Load, seconds: float) -> str:
    count = max(1, load.outcomes.total())
    p50, p95, p99 = 1000 * np.percentile(load.seconds or [np.nan], [50, 95, 99])
    others = {name: times for name, times in sorted(load.outcomes.items()) if name not in ("reranked", "shed")}
    told = ", ".join(f"{name} {times}" for name, times in others.items()) or "none"
    (front, engine), (most_front, most_engine) = load.memory[-1], np.max(load.memory, axis=0)
    figures = (
        f"{load.outcomes['reranked'] / seconds:.2f} | {p50:.0f} | {p95:.0f} | {p99:.0f} | {load.outcomes['shed'] / count:.1%} | {told}"
    )
    return f"| {rate:g} | {figures} | {front:.0f} ({most_front:.0f}) | {engine:.0f} ({most_engine:.0f}) |"


if __name__ == "__main__":
    main()
