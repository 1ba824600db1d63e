import pytest

from stages.retrieve.params import RetrieveParams
from stages.shared.core.errors import StageError
from stages.shared.core.params import validate_section


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "language_model"}, "retrieve.reads"),
        ({"reads": "data/midtrain/model"}, "retrieve.model is sasrec"),
        ({"model": "language_model", "reads": "data/midtrain/model", "cross_fit": "folds"}, "retrieve.cross_fit cut"),
        ({"hidden": 63, "heads": 2}, "multiple of heads"),
        ({"candidates": 4, "hard_negatives": 4}, "less than candidates"),
    ],
)
def test_values_that_do_not_go_together_are_named(values, said):
    with pytest.raises(StageError, match=said):
        validate_section("retrieve", RetrieveParams, values, "params.yaml")
