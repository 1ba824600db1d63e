import re

import pytest

from stages.report.page import rl_plots
from tests.support.report_data import behaviour_at

ROWS = [{"step": step, "reward": 0.1 * step, **behaviour_at(step)} for step in (1, 2, 30)]
FIT = {"a": 0.5, "b": 1.0, "ceiling": 0.5, "explained": 0.75}


def titles(svg: str) -> list[str]:
    return [title for title in rl_plots.PANELS.values() if title in svg]


def test_a_panel_for_what_was_measured():
    assert titles(rl_plots.behaviour(ROWS)) == list(rl_plots.PANELS.values()), "a probe at step 1 alone, a validation at step 30 alone"
    assert titles(rl_plots.behaviour(ROWS[1:2])) == list(rl_plots.PANELS.values())[:-2]
    assert titles(rl_plots.behaviour([{"step": 1, "valid": 0.5}])) == ["Valid answers"]
    assert rl_plots.behaviour([{"step": 1, "reward": 0.5}]) == "" == rl_plots.behaviour([])
    assert rl_plots.behaviour(ROWS) == rl_plots.behaviour(ROWS)


def test_the_entropy_and_its_ceiling():
    assert "explains 75% of the reward's variance. Dashed" in rl_plots.entropy_caption(FIT)
    dashed = len(re.findall("stroke-dasharray", rl_plots.entropy(ROWS, FIT)))
    for change, words in (({"a": -0.5, "ceiling": 1.5}, "does not rise as entropy falls"), ({"explained": 0.17}, "that is too little")):
        assert len(re.findall("stroke-dasharray", rl_plots.entropy(ROWS, FIT | change))) < dashed, "no ceiling where none can be read"
        assert re.search(f"No ceiling can be read from it: .*{words}", rl_plots.entropy_caption(FIT | change))
    assert rl_plots.entropy([{"step": 1, "reward": 0.5}], FIT) == ""


@pytest.mark.parametrize("value", ["0.5", 0.5])
def test_values_may_be_text(value):
    assert rl_plots.behaviour([{"step": "1", "valid": value}])
