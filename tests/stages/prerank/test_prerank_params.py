import pytest

from stages.prerank.params import PrerankParams
from stages.shared.errors import StageError
from stages.shared.params import validate_section


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "language_model"}, "prerank.reads"),
        ({"reads": "data/midtrain/model"}, "prerank.model is sasrec"),
        ({"model": "language_model", "reads": "data/midtrain/model", "cross_fit": "folds"}, "prerank.cross_fit cut"),
        ({"hidden": 63, "heads": 2}, "multiple of heads"),
        ({"candidates": 4, "hard_negatives": 4}, "less than candidates"),
    ],
)
def test_values_that_do_not_go_together_are_named(values, said):
    with pytest.raises(StageError, match=said):
        validate_section("prerank", PrerankParams, values, "params.yaml")
