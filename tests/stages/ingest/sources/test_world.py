"""The synthetic store: do its people shop by the formula, and what does the stage make of them?"""

import math
from contextlib import chdir
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from scipy.stats import chisquare

from stages.ingest.build.text import clean_text, restore_article
from stages.ingest.ingest import ingest
from stages.ingest.params import IngestParams, WorldParams
from stages.ingest.sources.world import follow_steps, items_of, make_world, shop
from stages.ingest.sources.world_text import BRANDS, DEPARTMENTS, LINES, title
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import read_json, stage_outputs
from stages.shared.core.params import load_params, validate_section
from stages.shared.core.schemas import INTERACTIONS, ITEMS, USERS, read_table
from stages.shared.synthetic.world import NOBODY, World, expected
from tests.support.raw_log import raw_log, run
from tests.support.raw_reading import read

ROOT = Path(__file__).parents[4]
SMALL = {"users": 150, "shortest": 8, "longest": 16, "items": 60, "departments": 2, "categories": 3, "brands": 2, "types": 4}
SPLIT = {"min_interactions": 1, "min_base": 2, "valid_positions": 1, "test_positions": 2}


def run_world(folder: Path, world: dict, **section) -> Path:
    folder.mkdir(exist_ok=True)
    with chdir(folder), stage_outputs("ingest") as outputs:
        ingest(IngestParams(source="synthetic", world=WorldParams(**{**SMALL, **world}), **{**SPLIT, **section}), outputs)
    return folder / "data/ingest"


def load(out: Path) -> World:
    world = World.load(out / "world.safetensors")
    assert world is not None
    return world


def test_the_stage_on_a_world(tmp_path):
    out = run_world(tmp_path, {})
    world, params = load(out), WorldParams(**SMALL)
    items, users = read_table(out / "items.parquet", ITEMS), read_table(out / "users.parquet", USERS)
    table = read_table(out / "interactions.parquet", INTERACTIONS)
    assert items["source_id"].to_list() == [str(item) for item in range(60)] and users.height == 150
    departments = list(DEPARTMENTS)
    for item, brand, categories in items.select("item", "brand", "categories").iter_rows():
        department, kind = divmod(int(world.category_I[item]), 3)
        assert categories == [departments[department], DEPARTMENTS[departments[department]][kind]]
        assert brand == BRANDS[world.brand_I[item]] and world.brand_I[item] // params.brands == department
    lengths = table.group_by("user").len()["len"]
    assert lengths.min() == 8 and lengths.max() == 16
    assert table.select("user", "item").is_unique().all()  # nobody takes an item twice
    assert (table["timestamp"].diff().fill_null(1).to_numpy()[table["position"].to_numpy() > 0] > 0).all()
    metrics = read_json(out / "metrics.json")
    assert sum(metrics["dropped"][key] for key in ("rejected", "duplicates")) == 0 and metrics["rejected"] == {}
    assert metrics["items_sharing_their_text"] == 0
    assert "Synthetic world (seed 7)" in (out / "card.md").read_text()


def test_equal_parameters_give_equal_bytes(tmp_path):
    one, other = run_world(tmp_path / "one", {}), run_world(tmp_path / "other", {})
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {path.name: path.read_bytes() for path in other.iterdir()}


def test_users_are_shopped_for_in_chunks(tmp_path, monkeypatch):
    """However few at a time: everybody comes, once each, and nobody takes an item twice."""
    monkeypatch.setattr("stages.ingest.sources.world._CHUNK", 60 * 7)
    table = read_table(run_world(tmp_path, {}) / "interactions.parquet", INTERACTIONS)
    assert table["user"].n_unique() == 150 and table.select("user", "item").is_unique().all()


CHANGES = {
    **{"seed": 8, "users": 151, "shortest": 9, "longest": 17, "items": 61, "departments": 3, "categories": 4, "brands": 3, "types": 5},
    **{"popularity": 0.5, "taste": 0.7, "follow": 1.0, "loyalty": 0.5, "memory": 1, "memory_decay": 0.4},
}


@pytest.mark.parametrize("key", CHANGES)
def test_every_key_of_the_world_does_something(tmp_path, key):
    before, after = run_world(tmp_path / "one", {}), run_world(tmp_path / "other", {key: CHANGES[key]})
    assert (before / "interactions.parquet").read_bytes() != (after / "interactions.parquet").read_bytes()
    assert (before / "world.safetensors").read_bytes() != (after / "world.safetensors").read_bytes() or key in ("shortest", "longest")


def test_no_key_of_the_world_is_forgotten_above():
    assert set(CHANGES) == set(WorldParams.model_fields)


def test_users_left_out_take_their_types_with_them(tmp_path):
    out = run_world(tmp_path, {}, min_interactions=12)
    kept = read_table(out / "users.parquet", USERS)["source_id"].cast(pl.Int64).to_numpy()
    assert 0 < len(kept) < 150
    assert (load(out).type_U == make_world(WorldParams(**SMALL)).type_U[kept]).all()


def test_other_sources_have_no_world(tmp_path):
    out = run(tmp_path, raw_log(tmp_path / "raw", [("u", f"i{step}", step) for step in range(9)]), min_interactions=1)
    assert World.load(out / "world.safetensors") is None


# ---- by the formula


def plain_chances(world: World, t: int, history: list[int]) -> np.ndarray:
    """The formula of docs/synthetic-world.md, written once more."""
    weights = []
    for j in range(len(world.category_I)):
        log = world.popularity_I[j] + world.taste_TC[t, world.category_I[j]] + world.taste_TB[t, world.brand_I[j]]
        for lag, before in zip(world.lag_M, history[::-1], strict=False):
            pair = world.category_I[before], world.category_I[j]
            log += lag * (world.follow_CC[pair] + (world.brand_I[before] == world.brand_I[j]) * world.loyalty_CC[pair])
        weights.append(0.0 if j in history else math.exp(log))
    return np.array(weights) / sum(weights)


def traits(world: World, t: int, history: list[int]) -> np.ndarray:
    """What the parameters pull at, of every item as the next one [traits, items]."""
    steps = follow_steps(2, 3)
    rows = [world.popularity_I, world.taste_TC[t, world.category_I], world.taste_TB[t, world.brand_I]]
    for before in (history[-1], history[-2]):
        follows = steps[world.category_I[before], world.category_I]
        rows += [follows, follows * (world.brand_I == world.brand_I[before])]
    return np.array(rows)


@pytest.fixture(scope="module")
def shopped():
    params = WorldParams(**{**SMALL, "users": 300, "follow": 1.5, "loyalty": 1.0, "memory_decay": 0.6})
    world = make_world(params)
    return params, world, shop(world, world.type_U, np.full(300, 12), np.random.default_rng(4))


def z_of_traits(world: World, generated_by: World, taken_NL: np.ndarray) -> np.ndarray:
    """Sums over all steps of (trait of the item taken - its expectation by `world`), in standard deviations: N(0, 1) if `world` is right.

    The terms are martingale differences, so their variances add up though the steps of a user depend on each other.
    """
    gap, variance = 0.0, 0.0
    for t, taken in zip(generated_by.type_U, taken_NL.tolist(), strict=True):
        for n in range(2, len(taken)):
            chances, values = plain_chances(world, t, taken[:n]), traits(generated_by, t, taken[:n])
            mean = values @ chances
            gap += values[:, taken[n]] - mean
            variance += values**2 @ chances - mean**2
    return gap / np.sqrt(variance)


def test_sequences_reproduce_the_parameters(shopped):
    """The score test: each parameter's trait is met as often as the formula says, and a formula that is off by a fifth is found out."""
    params, world, taken_NL = shopped
    assert np.abs(z_of_traits(world, world, taken_NL)).max() < 4
    off = make_world(params.model_copy(update={"follow": 1.2 * params.follow, "popularity": 1.2 * params.popularity}))
    z = z_of_traits(off, world, taken_NL)
    assert abs(z[0]) > 4 and abs(z[3]) > 4


def test_frequencies_are_those_of_the_oracle():
    """Many people of one type: their first items, and the second of those with the commonest first one, by World.log_probabilities."""
    world = make_world(WorldParams(**SMALL))
    taken_NL = shop(world, np.full(30_000, 2), np.full(30_000, 2), np.random.default_rng(1))
    everything, type_two = np.arange(60)[None], np.array([2])
    first_I = np.bincount(taken_NL[:, 0], minlength=60)
    assert chisquare(first_I, np.exp(world.log_probabilities([[]], everything, type_two))[0] * 30_000).pvalue > 1e-3
    common = int(first_I.argmax())
    second_I = np.bincount(taken_NL[taken_NL[:, 0] == common, 1], minlength=60)
    chances_I = np.exp(world.log_probabilities([[common]], everything, type_two))[0]
    often = chances_I * second_I.sum() > 5
    counts, means = [np.append(own[often], own[~often].sum()) for own in (second_I, chances_I * second_I.sum())]
    assert second_I[common] == 0 and chisquare(counts, means).pvalue > 1e-3


def test_types_come_as_often_as_the_prior_says():
    world = make_world(WorldParams(**{**SMALL, "users": 20_000}))
    assert chisquare(np.bincount(world.type_U, minlength=4), world.prior_T * 20_000).pvalue > 1e-3


def test_popularity_is_zipfs():
    weights = np.sort(np.exp(make_world(WorldParams(**{**SMALL, "popularity": 1.0})).popularity_I))[::-1]
    np.testing.assert_allclose(weights, 1 / np.arange(1, 61))


def test_lengths_are_kept():
    world = make_world(WorldParams(**SMALL))
    taken_NL = shop(world, np.array([0, 1, 2]), np.array([3, 1, 5]), np.random.default_rng(0))
    assert ((taken_NL != NOBODY).sum(axis=1) == [3, 1, 5]).all() and taken_NL.shape == (3, 5)


def test_who_knows_more_orders_better():
    """On what people really took next: chance < popularity < the Bayes order by the history < the one that knows the type."""
    world = make_world(WorldParams(**{**SMALL, "users": 3000, "taste": 1.0, "follow": 1.0}))
    taken_NL = shop(world, world.type_U, np.full(3000, 6), np.random.default_rng(2))
    rng = np.random.default_rng(3)
    histories = list(taken_NL[:, :5])
    others = np.stack([rng.choice(np.setdiff1d(np.arange(60), taken), 9, replace=False) for taken in taken_NL])
    slates = rng.permuted(np.concatenate([others, taken_NL[:, 5:]], axis=1), axis=1)
    orders = [
        np.tile(np.arange(10), (3000, 1)),
        np.argsort(-world.popularity_I[slates], axis=1),
        world.bayes_order(histories, slates),
        world.bayes_order(histories, slates, world.type_U),
    ]
    ndcg = np.where(np.arange(10) < 5, 1 / np.log2(np.arange(10) + 2.0), 0.0)
    ranks = [np.argmax(np.take_along_axis(slates, order, axis=1) == taken_NL[:, 5:], axis=1) for order in orders]
    met = [ndcg[rank].mean() for rank in ranks]
    assert met == sorted(met) and min(np.diff(met)) > 0.01
    # The others were drawn alike, so the slate says nothing of its target beyond the formula: expectation and outcome agree.
    chances = world.chances(histories, slates)
    for order, rank in zip(orders[:3], ranks[:3], strict=True):
        gap = ndcg[rank] - expected(ndcg, order, chances)
        assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(3000)


# ---- words, parameters, leaks


def test_titles_are_all_different_and_need_no_cleaning():
    params = WorldParams(users=1, items=20_000, departments=12, categories=8, brands=2)
    titles = items_of(make_world(params), params)["title"]
    assert titles.n_unique() == 20_000 and any(" No. 3" in own for own in titles)
    assert all(clean_text(own) == own == restore_article(own) for own in titles)
    assert title("A", "B", 3, 0) == f"A {LINES[3]} B" and title("A", "B", 0, len(LINES)) == f"A {LINES[0]} B No. 2"


def test_the_words_suffice_for_the_largest_world():
    assert len(set(BRANDS)) == len(BRANDS) >= 12 * 20
    kinds = [kind for own in DEPARTMENTS.values() for kind in own]
    assert len(DEPARTMENTS) == 12 and len(set(kinds)) == len(kinds) == 12 * 8


def test_steps_stay_in_the_department():
    assert follow_steps(2, 3).tolist() == [
        [0, 1, 0.5, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0.5],
        [0, 0, 0, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"world": {"shortest": 70}}, "world.shortest (70) is above world.longest (60)"),
        ({"world": {"items": 100}}, "set items to 2 * longest or more"),
        ({"world": {"items": 30, "longest": 10, "shortest": 5}}, "30 items cannot fill 6 * 6 categories"),
        ({"world": {"items": 20_000, "users": 200_000}}, "is 2.4e+11, at most 2.0e+10"),
        ({"world": {"departments": 13}}, "ingest.world.departments"),
        ({"world": {"tastes": 1.0}}, "ingest.world.tastes: unknown key; did you mean 'taste'?"),
        ({"min_item_interactions": 5}, "the Bayes order needs whole histories"),
        ({"max_history": 50}, "the Bayes order needs whole histories"),
        ({"keep_items": "interacted"}, "the Bayes order needs whole histories"),
    ],
)
def test_bad_parameters_are_named(section, said):
    with pytest.raises(StageError) as error:
        validate_section("ingest", IngestParams, {"source": "synthetic", **section}, "params.yaml")
    assert said in str(error.value)


def test_the_profile_is_valid():
    profile = yaml.safe_load((ROOT / "infra/profiles/world.yaml").read_text())
    assert validate_section("ingest", IngestParams, profile["ingest"], "world.yaml").source == "synthetic"
    assert load_params("ingest", IngestParams, ROOT / "params.yaml").world == WorldParams()


def test_the_raw_log_is_as_of_any_source():
    got = read(source="synthetic", world=WorldParams(**SMALL))
    assert [row[4] for row in got.interactions] == list(range(1, len(got.interactions) + 1)) and got.rejected == []
    again = read(source="synthetic", world=WorldParams(**{**SMALL, "seed": 8}))
    assert [file.sha256 for file in got.log.files] != [file.sha256 for file in again.log.files]


def test_no_stage_that_learns_reads_the_world():
    """What only the oracle may know: the types of the users and the formula's constants."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert "data/ingest/world.safetensors" in stages["ingest"]["outs"]
    assert {name for name, own in stages.items() if "data/ingest/world.safetensors" in own.get("do", own)["deps"]} <= {"evaluate", "report"}
    readers = [path for path in (ROOT / "stages").rglob("*.py") if "stages.shared.synthetic.world" in path.read_text()]
    packages = {path.relative_to(ROOT / "stages").as_posix().removeprefix("shared/").split("/")[0] for path in readers}
    assert packages <= {"ingest", "evaluation", "report"}
