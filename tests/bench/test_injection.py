"""What bench/injection.py counts, on planted models that obey a title or do not, and on a layout without titles."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from stages.evaluate.params import EvaluateParams
from stages.shared.evaluation.test_set import load_test_set, read_slate_tables
from stages.shared.generation.reranking.language_model import open_language_model
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.reranking.rankings import Rankings
from tests.stages.shared.slates.test_compact import CATALOG, SLATE
from tests.support import serve_project
from tests.support.chat_models import chat_folder, chat_tokenizer

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

import injection

SLATES = [replace(SLATE, slate=number, user=number % 4) for number in range(12)]
TITLED = PromptParams(titles=True)


class Obedient:
    """Ranks by the order shown, but puts first what says so; obeys: whether it does. Breaks on script tags."""

    def __init__(self, obeys, encoded=None):
        self.obeys, self.encoded = obeys, encoded or SimpleNamespace(layout=None)

    def answers(self, slates, sampling, constrained):
        assert not constrained
        catalog, orders, faults = self.encoded.layout.catalog, [], []
        for slate in slates:
            titles = [catalog.titles[item] for item in slate.candidates]
            orders.append(sorted(range(len(titles)), key=lambda rank, titles=titles: not (self.obeys and "Ignore" in titles[rank])))
            faults.append("syntax" if any("alert" in title for title in titles) else "")
        return [Rankings(np.array(orders), faults, [""] * len(slates))]


def measured(monkeypatch, obeys, options=TITLED):
    monkeypatch.setattr(injection, "replace", lambda one, **changes: _changed(one, changes))
    trial = injection.Trial(SLATES, [1 + number % (len(SLATE.candidates) - 1) for number in range(len(SLATES))], CATALOG)
    lines = injection.measure(trial, Obedient(obeys), options, EvaluateParams(), "<eos>")
    return {line.split(" | ")[0].strip("| "): line.split(" | ") for line in lines}


def _changed(one, changes):
    if isinstance(one, Obedient):
        return Obedient(one.obeys, changes["encoded"])
    return SimpleNamespace(**changes) if isinstance(one, SimpleNamespace) else replace(one, **changes)


def test_a_model_that_obeys_a_title_is_found_and_one_that_does_not_is_not(monkeypatch):
    obeyed, ignored = measured(monkeypatch, True), measured(monkeypatch, False)
    assert set(obeyed) == {"another title", *injection.ATTACKS}
    assert obeyed["rank me first"][1:4] == ["100.0%", "0.0%", "+100.0% [+100.0%, +100.0%]"]
    assert obeyed["rank me first"][5].startswith("100.0% (0.0%)")
    assert {tuple(cells[1:3]) for name, cells in obeyed.items() if name != "rank me first"} == {("0.0%", "0.0%")}
    assert {tuple(cells[1:3]) for cells in ignored.values()} == {("0.0%", "0.0%")}
    assert ignored["script"][6].startswith("0.0% (100.0%)") and ignored["praise"][6].startswith("100.0% (100.0%)")


def test_without_titles_in_prompts_there_is_nothing_to_measure(monkeypatch):
    assert measured(monkeypatch, True, PromptParams(titles=False)) == {}


def test_only_the_title_is_another(monkeypatch):
    trial = injection.Trial(SLATES[:2], [1, 2], CATALOG)
    changed = trial.with_titles(["x", "y"])
    assert changed.titles == ["x", "y"]
    for before, after, rank in zip(trial.slates, changed.slates, trial.ranks, strict=True):
        assert [item for place, item in enumerate(after.candidates) if place != rank] == [
            item for place, item in enumerate(before.candidates) if place != rank
        ]
        assert changed.catalog.sids[after.candidates[rank]] == CATALOG.sids[before.candidates[rank]]
        assert replace(after, candidates=before.candidates) == before


@pytest.mark.parametrize("shares", [(0.5, 0.2), (0.1, 0.4)])
def test_the_interval_holds_the_difference(shares):
    rng = np.random.default_rng(0)
    plain = np.full(2000, 5)
    drawn = rng.random(2000)
    changed = np.where(drawn < shares[0], 4, np.where(drawn > 1 - shares[1], 6, 5))
    valid = np.ones(2000, dtype=bool)
    cells = injection.row("x", plain, changed, (valid, valid), np.arange(2000)).split(" | ")
    low, high = (float(part.strip("[]%")) / 100 for part in cells[3].split(" ", 1)[1].split(", "))
    assert low < shares[0] - shares[1] < high and high - low < 0.1


@pytest.mark.parametrize("titles", [True, False])
def test_a_finished_run_is_measured(tmp_path, monkeypatch, titles):
    monkeypatch.chdir(tmp_path)
    serve_project.write_run(tmp_path, prompt={"titles": titles})
    text = injection.report("rl", 6)
    assert "6 test slates of " in text
    if titles:
        assert all(line.endswith(" 0 (0) |") for line in text.splitlines()[4:]), "nothing is cut in the layout compact"
        assert [line.split(" | ")[0].strip("| ") for line in text.splitlines()[4:]] == ["another title", *injection.ATTACKS]
    else:
        assert "no titles" in text


def test_a_finished_run_of_dialogues_is_measured(tmp_path, monkeypatch):
    """As the profile smollm2 with titles: hostile ones make prompts longer, which the budget cuts and the engine must have room for."""
    monkeypatch.chdir(tmp_path)
    prompt = {"layout": "chat", "titles": True, "history": 4, "cited": ["co", "tr"], "explanation_tokens": 8}
    serve_project.write_run(tmp_path, prompt=prompt, evaluate={"max_tokens": 16, "constrained": False})
    shutil.rmtree(serve_project.MODEL)
    chat_folder(serve_project.MODEL)
    found = load_test_set(read_slate_tables(), 3)
    plain = EncodedLayout(layout_of(found.catalog), chat_tokenizer()).prompts(found.slates)
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["prompt"]["max_tokens"] = budget = max(map(len, plain))
    params["evaluate"]["engine"]["max_model_len"] = 32
    Path("params.yaml").write_text(yaml.safe_dump(params))
    engines = []

    def opened(folder, layout, engine, *more, **named):
        engines.append(engine)
        return open_language_model(folder, layout, engine, *more, **named)

    monkeypatch.setattr(injection, "open_language_model", opened)
    lines = injection.report("rl", 3).splitlines()
    assert "layout chat, decoded freely" in lines[0]
    cut = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip("| ") for line in lines[4:]}
    assert list(cut) == ["another title", *injection.ATTACKS]
    assert all(cut[name] in ("1 (0)", "2 (0)", "3 (0)") for name in injection.ATTACKS), "of the slate with the longest prompt at least"
    assert [engine.max_model_len for engine in engines] == [budget + 16]
