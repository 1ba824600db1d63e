"""What `gr2 validate` calls a fault of logged lists is what the stage retrieve refuses, and nothing else."""

from itertools import chain, combinations

import pytest

from stages.retrieve.given.given import Reading, require_splits
from stages.retrieve.given.impression import Impression
from stages.retrieve.given.placing import PlacedSlate
from stages.retrieve.params import RetrieveParams
from stages.shared.core.errors import StageError
from stages.tools.data_checks import list_checks

SPLITS = ("train", "valid", "test")


def is_refused(placed: list[PlacedSlate]) -> bool:
    try:
        require_splits(placed, Reading(), "lists.parquet")
    except StageError:
        return True
    return False


@pytest.mark.parametrize("splits", chain.from_iterable(combinations(SPLITS, count) for count in range(4)))
def test_faults_are_what_retrieve_refuses(splits):
    shown = Impression("u", 0, ("a", "b"), (1, 0))
    placed = [PlacedSlate(0, 1, 0, split, [9], [1, 2], 0, shown) for split in splits]
    found = list_checks(RetrieveParams(), placed, Reading())
    assert any(check.level == "fault" for check in found) == is_refused(placed)
    assert {check.name for check in found if check.level != "ok"} >= {f"lists {split}" for split in SPLITS if split not in splits}


@pytest.mark.parametrize(
    ("slates", "max_slates", "level", "remedies"),
    [
        (200, 0, "ok", []),
        (500, 200, "ok", []),
        (199, 0, "warning", ["ingest.test_positions"]),
        (500, 40, "warning", ["evaluate.max_slates (0: all)"]),
        (150, 40, "warning", ["evaluate.max_slates (0: all)", "ingest.test_positions"]),
        (150, 300, "warning", ["ingest.test_positions"]),
    ],
)
def test_few_test_slates_have_the_remedy_that_helps(slates, max_slates, level, remedies):
    """The smoke budget measures on forty, however many there are."""
    shown = Impression("u", 0, ("a", "b"), (1, 0))
    placed = [PlacedSlate(0, 1, 0, "test", [9], [1, 2], 0, shown)] * slates
    check = list_checks(RetrieveParams(), placed, Reading(), max_slates)[-1]
    assert check.name == "test slates" and check.level == level
    keys = ("evaluate.max_slates (0: all)", "ingest.test_positions")
    assert level == "ok" or [key for key in keys if key in check.remedy] == remedies
    assert f"{slates:,} lists" in check.found and (f"takes {max_slates:,}" in check.found) == (0 < max_slates < slates)
