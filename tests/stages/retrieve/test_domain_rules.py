"""Rules of the domain: what follows what, and what the catalogue holds; and as lines of a prompt."""

import json

import numpy as np
import polars as pl
import pytest

from stages.retrieve.domain_rules import LEAST_PAIRS, PRIOR, mine
from stages.shared.core.errors import StageError
from stages.shared.slates.layouts import domain_rules
from stages.shared.slates.layouts.chat import ChatLayout
from stages.shared.slates.layouts.domain_rules import Follows, Holds, Rules, read_rules, with_mined_rules
from stages.shared.slates.prompt_params import PromptParams
from tests.stages.shared.slates.test_chat import CATALOG, SLATE

PATHS = [["Hair", "Shampoo"]] * 3 + [["Hair", "Conditioner"]] * 2 + [["Skin", "Cream"]] * 4 + [[]]
ITEMS = pl.DataFrame({"item": range(10), "categories": PATHS}, schema={"item": pl.Int32, "categories": pl.List(pl.String)})


def base(sequences: list[list[int]]) -> pl.DataFrame:
    rows = [(user, item, position) for user, items in enumerate(sequences) for position, item in enumerate(items)]
    frame = pl.DataFrame(rows, schema={"user": pl.Int32, "item": pl.Int32, "position": pl.Int32}, orient="row")
    return frame.sort("item").with_columns(split=pl.lit("base"))


def test_what_follows_what_as_counted_by_hand() -> None:
    """Shampoo, then a conditioner, 12 times; creams among themselves; an item without a category says nothing."""
    found = mine(base([[0, 3]] * 12 + [[5, 6]] * 20 + [[5, 0]] * 9 + [[9, 3]] * 30), ITEMS)
    pairs, total, share = 12, 12, 12 / 41
    assert found.follows == [Follows("Shampoo", "Conditioner", round((pairs + PRIOR * share) / ((total + PRIOR) * share), 2), 12)]
    assert LEAST_PAIRS > 9  # cream -> shampoo is too rare, cream -> cream no news


def test_the_catalogue_s_categories_and_the_kinds_in_them() -> None:
    found = mine(base([[0, 3]]), ITEMS)
    assert found.follows == [] and found.holds == [Holds("Hair", ["Shampoo", "Conditioner"], 5)]


def test_chance_alone_makes_few_rules() -> None:
    """Sequences without any order: what passes 1.5 times by luck is rare among all pairs of kinds."""
    rng = np.random.default_rng(0)
    items = pl.DataFrame({"item": range(60), "categories": [[f"kind {item % 12}"] for item in range(60)]}, schema=ITEMS.schema)
    found = mine(base(rng.integers(0, 60, (400, 20)).tolist()), items)
    assert len(found.follows) <= 2 and found.holds == []


def test_lines_of_a_prompt(tmp_path, monkeypatch) -> None:
    rules = Rules(
        [Follows("Sham<poo", "Conditioner", 3.25, 40), Follows("a", "b", 2.0, 10)], [Holds("Hair", ["Shampoo", "Conditioner"], 5)]
    )
    monkeypatch.setattr(domain_rules, "FILE", tmp_path / "rules.json")
    rules.write(tmp_path / "rules.json")
    monkeypatch.setattr(domain_rules.read_rules, "__defaults__", (tmp_path / "rules.json",))
    assert read_rules() == rules
    options = PromptParams(layout="chat", domain=["by hand"], domain_rules=1)
    shown = with_mined_rules(options)
    assert shown.domain == ["by hand", '"Hair": "Shampoo", "Conditioner"', '"Sham‹poo" -> "Conditioner" (3.2 times as often as elsewhere)']
    assert '- "Hair": "Shampoo", "Conditioner"\n' in ChatLayout(CATALOG, shown).prompt(SLATE)
    assert with_mined_rules(options.model_copy(update={"domain_rules": 0})).domain == ["by hand"]
    assert with_mined_rules(options.model_copy(update={"layout": "compact"})).domain == ["by hand"]


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"follows": [{"before": "a"}], "holds": []})])
def test_a_file_of_another_form_says_what_to_do(tmp_path, text) -> None:
    (tmp_path / "rules.json").write_text(text)
    with pytest.raises(StageError, match=r"rules.json: cannot be read .*gr2 run retrieve"):
        read_rules(tmp_path / "rules.json")
