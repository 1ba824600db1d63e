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

--kill-engine-at, repeatable: kill -9 of the engine so many seconds into each rate. Each rate is then run twice, without kills and with
them, and at the end every slate that got a new order is asked once more, alone. A second table says what became of every request: right
(the order that the same slate gets alone), another order, a fallback (marked, with the incoming order whole), shed, or WRONG (anything
else: not all items once, a fallback in another order, no answer). Another order without kills is what batches do, in which sums round
otherwise; a kill must add none. The exit code is 1 where anything is WRONG.
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
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import psutil

from stages.serve.requests import FALLBACKS

MIB = 2**20
START_S, TIMEOUT_S = 600, 120
ENGINE = "stages.serve.engine.worker"
HEAD = "| offered/s | reranked/s | p50 ms | p95 ms | p99 ms | shed | fallbacks | front MiB: first, most, last | engine MiB |"
KILL_HEAD = "| offered/s | engine killed | requests | right | another order | fallbacks | shed | WRONG |"
WRONG = "WRONG"
Order = tuple[int, ...]
Body = dict[str, Any]


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
    parser.add_argument(
        "--kill-engine-at", type=float, action="append", default=[], metavar="SECONDS", help="kill -9 of the engine; repeatable"
    )
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
        if wrong := asyncio.run(measured(found[0], server.pid, bodies, options)):
            sys.exit(f"{wrong} requests got no whole answer; see the fallbacks of the table")
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(START_S)
        server.kill()


def requests_of(folder: Path) -> list[Body]:
    ids = pl.read_parquet(folder / "data/ingest/items.parquet")["source_id"].to_list()
    slates = pl.read_parquet(folder / "data/retrieve/slates.parquet").filter(pl.col("split") == "test").select("history", "candidates")
    return [{"history": [ids[item] for item in past], "items": [ids[item] for item in asked]} for past, asked in slates.iter_rows() if past]


async def measured(address: str, pid: int, bodies: list[Body], options: argparse.Namespace) -> int:
    """Prints the tables; how many requests got no whole answer."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    loads: list[tuple[float, Load]] = []
    print(HEAD + "\n" + HEAD.count(" | ") * "|---" + "|---|", flush=True)
    async with httpx.AsyncClient(base_url=address, timeout=TIMEOUT_S, limits=limits) as client:
        for rate in options.rates:
            for kills in [[], options.kill_engine_at] if options.kill_engine_at else [[]]:
                load = await run(client, pid, bodies, rate, options.seconds, options.seed, kills)
                print(row(rate, load, options.seconds), flush=True)
                loads.append((rate, load))
        if options.kill_engine_at:
            print("\n" + KILL_HEAD + "\n" + KILL_HEAD.count(" | ") * "|---" + "|---|", flush=True)
            alone = await asked_alone(client, bodies, {place for _, load in loads for place, _ in load.orders})
            print("\n".join(kill_row(rate, load, alone) for rate, load in loads))
    return sum(load.wrong() for _, load in loads)


async def run(
    client: httpx.AsyncClient, pid: int, bodies: list[Body], rate: float, seconds: float, seed: int, kills: Sequence[float] = ()
) -> Load:
    """pid: of the server. kills: seconds at which its engine is killed."""
    load, rng = Load(), np.random.default_rng(seed)
    due = np.cumsum(rng.exponential(1 / rate, int(rate * seconds * 2) + 10))
    due = due[due < seconds]
    chosen = rng.integers(len(bodies), size=len(due))
    await until_ready(client)  # an earlier rate may have killed it
    watch = asyncio.create_task(watched(pid, load))
    begin, asked = time.monotonic(), []
    for moment in kills:
        asyncio.get_running_loop().call_later(moment, kill_engine, pid, load)
    for moment, place in zip(due.tolist(), chosen.tolist(), strict=True):
        await asyncio.sleep(max(0.0, begin + moment - time.monotonic()))
        asked.append(asyncio.create_task(ask(client, bodies[place], place, begin + moment, load)))
    await asyncio.gather(*asked)
    watch.cancel()
    return load


async def until_ready(client: httpx.AsyncClient) -> None:
    end = time.monotonic() + START_S
    while (await client.get("/ready")).status_code != 200:
        if time.monotonic() > end:
            sys.exit(f"the engine was not up again within {START_S} s")
        await asyncio.sleep(0.2)


async def ask(client: httpx.AsyncClient, body: Body, place: int, due: float, load: Load) -> None:
    try:
        answer = await client.post("/rank", json=body)
    except httpx.HTTPError as error:
        load.outcomes[type(error).__name__] += 1
        return
    name, order = judged(answer, len(body["items"]))
    load.outcomes[name] += 1
    if order:
        load.seconds.append(time.monotonic() - due)
        load.orders.append((place, order))


def judged(answer: httpx.Response, items: int) -> tuple[str, Order]:
    """What became of a request: reranked, with the new order; shed; the reason of a fallback; or WRONG."""
    if answer.status_code == 429 and int(answer.headers.get("retry-after", 0)) >= 1:
        return "shed", ()
    if answer.status_code != 200:
        return WRONG, ()
    found = answer.json()
    order, incoming = tuple(item["index"] for item in found["items"]), tuple(range(items))
    if tuple(sorted(order)) != incoming or (found["fallback"] and order != incoming):
        return WRONG, ()
    return (found["fallback"], ()) if found["fallback"] else ("reranked", order)


async def asked_alone(client: httpx.AsyncClient, bodies: list[Body], places: set[int]) -> dict[int, Order]:
    """Place of a body -> its order, () where it got none; one request after the other."""
    await until_ready(client)
    return {place: judged(await client.post("/rank", json=bodies[place]), len(bodies[place]["items"]))[1] for place in sorted(places)}


async def watched(pid: int, load: Load) -> None:
    while True:
        engine = 0.0
        with suppress(psutil.Error):
            for one in psutil.Process(pid).children(recursive=True):
                engine += one.memory_info().rss / MIB
        load.memory.append((psutil.Process(pid).memory_info().rss / MIB, engine))
        await asyncio.sleep(1.0)


def kill_engine(pid: int, load: Load) -> None:
    for one in psutil.Process(pid).children():
        with suppress(psutil.Error):
            if ENGINE in one.cmdline():
                one.send_signal(signal.SIGKILL)
                load.killed += 1


def row(rate: float, load: Load, seconds: float) -> str:
    p50, p95, p99 = 1000 * np.percentile(load.seconds or [np.nan], [50, 95, 99])
    others = {name: times for name, times in sorted(load.outcomes.items()) if name not in ("reranked", "shed")}
    told = ", ".join(f"{name} {times}" for name, times in others.items()) or "none"
    shed = load.outcomes["shed"] / max(1, load.outcomes.total())
    figures = f"{load.outcomes['reranked'] / seconds:.2f} | {p50:.0f} | {p95:.0f} | {p99:.0f} | {shed:.1%} | {told}"
    memory = [f"{first:.0f}, {most:.0f}, {last:.0f}" for first, most, last in map(first_most_last, zip(*load.memory, strict=True))]
    return f"| {rate:g} | {figures} | {memory[0]} | {memory[1]} |"


def first_most_last(values: Sequence[float]) -> tuple[float, float, float]:
    return values[0], max(values), values[-1]


def kill_row(rate: float, load: Load, alone: dict[int, Order]) -> str:
    """What became of every request; alone: see asked_alone."""
    right = sum(alone[place] == order for place, order in load.orders)
    fallbacks = sum(load.outcomes[reason] for reason in FALLBACKS)
    counts = (load.outcomes.total(), right, len(load.orders) - right, fallbacks, load.outcomes["shed"], load.wrong())
    return f"| {rate:g} | {load.killed} times | " + " | ".join(map(str, counts)) + " |"


if __name__ == "__main__":
    main()
