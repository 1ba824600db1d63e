"""Source `synthetic`: makes a world (stages/shared/synthetic/world.py) out of `ingest.world`, and lets its users shop."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from stages.ingest.params import IngestParams, WorldParams
from stages.ingest.readers.raw import RAW_INTERACTIONS, RawFile, RawLog
from stages.ingest.readers.validate import StagingTables
from stages.ingest.sources.world_text import BRANDS, DEPARTMENTS, title
from stages.shared.synthetic.world import NOBODY, Floats, Ints, World, save_no_world

FOLLOW_STEPS = (1.0, 0.5)  # how much of `follow` goes to the next category of the department, and to the one after
TYPE_CONCENTRATION = 5.0  # Dirichlet: types are of unlike size, none is rare
FIRST_DAY, DAYS, DAY = 1_577_836_800, 365, 86_400  # users come in the year from 2020-01-01 on
DAYS_BETWEEN = 4.0
_LICENCE = "Made up by this program; nobody has rights in it."
_CHUNK = 8_000_000  # weights held at once: 64 MB
_WORLD, _SHOPPING = 0, 1  # streams of the seed


def make_world(params: WorldParams) -> World:
    """Its constants and the types of its users: all but what they take."""
    rng = np.random.default_rng([params.seed, _WORLD])
    categories, brands = params.departments * params.categories, params.departments * params.brands
    # Every category has an item. A brand sells in one department only, there in all categories.
    category_I = np.concatenate([np.arange(categories), rng.integers(categories, size=params.items - categories)])
    department_I = category_I // params.categories
    rank_I = 1 + rng.permutation(params.items)
    department_C = np.arange(categories) // params.categories
    by_department_TD = rng.standard_normal((params.types, params.departments))
    by_category_TC = rng.standard_normal((params.types, categories))
    next_CC = follow_steps(params.departments, params.categories)
    return World(
        category_I=category_I.astype(np.int32),
        brand_I=(department_I * params.brands + rng.integers(params.brands, size=params.items)).astype(np.int32),
        popularity_I=-params.popularity * np.log(rank_I),
        taste_TC=params.taste * (by_department_TD[:, department_C] + by_category_TC) / np.sqrt(2),
        taste_TB=params.taste * rng.standard_normal((params.types, brands)),
        follow_CC=params.follow * next_CC,
        loyalty_CC=params.loyalty * next_CC,
        lag_M=np.power(params.memory_decay, np.arange(params.memory, dtype=np.float64)),
        prior_T=(prior_T := rng.dirichlet(np.full(params.types, TYPE_CONCENTRATION))),
        type_U=rng.choice(params.types, size=params.users, p=prior_T).astype(np.int32),
    )


def follow_steps(departments: int, categories: int) -> Floats:
    """FOLLOW_STEPS from each category to those behind it in its department; the last is followed up by none. [C, C]"""
    department_CC = np.zeros((categories, categories))
    for step, weight in enumerate(FOLLOW_STEPS, start=1):
        department_CC += weight * np.eye(categories, k=step)
    return np.asarray(np.kron(np.eye(departments), department_CC), dtype=np.float64)


def read_world(params: WorldParams, scratch: StagingTables) -> RawLog:
    """The world's log and items, as if read from files."""
    world, log, catalogue = make_world(params), _VirtualFile("interactions of ingest.world"), _VirtualFile("items of ingest.world")
    rng = np.random.default_rng([params.seed, _SHOPPING])
    chunk, row = max(1, _CHUNK // params.items), 1
    for first in range(0, params.users, chunk):
        users_N = np.arange(first, min(first + chunk, params.users))
        taken_NL = shop(world, world.type_U[users_N], rng.integers(params.shortest, params.longest + 1, size=len(users_N)), rng)
        rows = log_of(users_N, taken_NL, row, rng)
        scratch.add_interactions(log.name, log.hashed(rows))
        row += rows.height
    scratch.add_items(catalogue.name, catalogue.hashed(items_of(world, params)))
    return scratch.finish(f"Synthetic world (seed {params.seed})", _LICENCE, [log.file(), catalogue.file()], "Categories")


def shop(world: World, types_N: Ints, lengths_N: Ints, rng: np.random.Generator) -> Ints:
    """What users of these types take, one item after the other [N, longest]; NOBODY behind the end."""
    taken_NL = np.full((len(types_N), int(lengths_N.max())), NOBODY)
    # All draws at once, so that the outcome does not depend on how many users end early.
    chance_NL = rng.random(taken_NL.shape)
    weight_NI = np.exp(world.weight_TI)[types_N]
    last_NM = np.full((len(types_N), len(world.lag_M)), NOBODY)
    for step in range(taken_NL.shape[1]):
        active = np.flatnonzero(lengths_N > step)
        cumulative_NI = np.cumsum(weight_NI[active] * np.exp(world.follow_up(last_NM[active])), axis=1)
        # The first item whose share of the sum lies beyond the draw; a weight of 0 adds nothing, so it is never that one.
        item_N = (cumulative_NI <= (chance_NL[active, step] * cumulative_NI[:, -1])[:, None]).sum(axis=1)
        taken_NL[active, step] = item_N
        weight_NI[active, item_N] = 0.0
        last_NM[active] = np.concatenate([item_N[:, None], last_NM[active, :-1]], axis=1)
    return taken_NL


def log_of(users_N: Ints, taken_NL: Ints, first_row: int, rng: np.random.Generator) -> pl.DataFrame:
    """RAW_INTERACTIONS of what the users took. Times have no meaning but their order, strict within a user."""
    gaps_NL = 1 + rng.exponential(DAYS_BETWEEN * DAY, size=taken_NL.shape).astype(np.int64)
    times_NL = FIRST_DAY + rng.integers(DAYS * DAY, size=(len(users_N), 1)) + np.cumsum(gaps_NL, axis=1)
    is_taken_NL = taken_NL != NOBODY
    rows = first_row + np.arange(int(is_taken_NL.sum()))
    columns = {
        "user": users_N.repeat(is_taken_NL.sum(axis=1)),
        "item": taken_NL[is_taken_NL],
        "timestamp": times_NL[is_taken_NL],
        "row": rows,
    }
    table = pl.DataFrame(columns).with_columns(rating=None, nanos=0)
    return table.select(pl.col(name).cast(dtype) for name, dtype in RAW_INTERACTIONS.items())


def items_of(world: World, params: WorldParams) -> pl.DataFrame:
    """RAW_ITEMS of the world."""
    departments = list(DEPARTMENTS)
    last_in_cell: dict[int, int] = {}
    rows = []
    for item, (category, brand) in enumerate(zip(world.category_I.tolist(), world.brand_I.tolist(), strict=True)):
        department, kind = divmod(category, params.categories)
        cell = category * params.brands + brand % params.brands
        last_in_cell[cell] = position = last_in_cell.get(cell, -1) + 1
        words = DEPARTMENTS[departments[department]][kind]
        rows.append((str(item), title(BRANDS[brand], words, cell, position), "", BRANDS[brand], [departments[department], words], item + 1))
    return pl.DataFrame(rows, schema=["source_id", "title", "year", "brand", "categories", "row"], orient="row")


def write_world(params: IngestParams, users: pl.DataFrame, path: Path) -> None:
    """What evaluate needs for the Bayes order; for another source a file that says there is no world. users: USERS, those kept."""
    if params.source != "synthetic":
        return save_no_world(path)
    world = make_world(params.world)
    kept_U = users["source_id"].cast(pl.Int64).to_numpy()
    replace(world, type_U=world.type_U[kept_U]).save(path)


class _VirtualFile:
    """A file that never was: its size and checksum are those of the rows as CSV, so that the data card tells one world from another."""

    def __init__(self, name: str):
        self.name, self.size, self.hash = name, 0, hashlib.sha256()

    def hashed(self, table: pl.DataFrame) -> pl.DataFrame:
        """`table` as a parsed block (validate.py)."""
        flat = table.with_columns(pl.col(pl.List(pl.String)).list.join("|"))
        words = flat.write_csv(include_header=False).encode()
        self.hash.update(words)
        self.size += len(words)
        return table.with_columns(reason=pl.lit(None, pl.String), text=pl.lit(""))

    def file(self) -> RawFile:
        return RawFile(self.name, self.hash.hexdigest(), self.size)
