"""Two runs compared: slate by slate where the slates are the same, else by their gains; against brute force and closed forms."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.shared.stats.bootstrap import Resampling
from stages.tools.compare_runs import compare, main, measure, read_run


def outputs(path: Path, incoming: np.ndarray, ranks: np.ndarray, users: np.ndarray | None = None, model: str = "rl") -> Path:
    """An outputs.parquet whose `model` puts the targets, which came in at `incoming`, at `ranks`."""
    n = len(incoming)
    users = np.arange(n) // 2 if users is None else users
    frame = {"slate": np.arange(n), "user": users, "position": 30 + np.arange(n) % 2, "target_rank": incoming}
    parts = [pl.DataFrame({**frame, "model": [name] * n, "new_rank": own}) for name, own in (("incoming", incoming), (model, ranks))]
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.concat(parts).write_parquet(path)
    return path


def slates(path: Path, candidates: list[list[int]]) -> Path:
    pl.DataFrame({"slate": range(len(candidates)), "target": [own[0] for own in candidates], "candidates": candidates}).write_parquet(path)
    return path


def pair(first: Path, second: Path, metric: str = "ndcg@5", resamples: int = 2000) -> dict:
    return compare(*(measure(read_run(path.stem, path), "rl", metric) for path in (first, second)), "rl", metric, Resampling(resamples, 7))


def ndcg(ranks: np.ndarray) -> np.ndarray:
    return np.array([1 / math.log2(rank + 2) if rank < 5 else 0.0 for rank in ranks])


def test_same_slates_are_paired_and_the_interval_is_that_of_scipy(tmp_path: Path) -> None:
    """One slate a user, so resampling users is resampling slates, which scipy does by itself."""
    rng = np.random.default_rng(0)
    incoming, one, other = rng.integers(0, 10, (3, 300))
    found = pair(*(outputs(tmp_path / f"{name}.parquet", incoming, own, np.arange(300)) for name, own in (("a", one), ("b", other))))
    diffs = ndcg(other) - ndcg(one)
    expected = scipy.stats.bootstrap((diffs,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    assert found["paired"] and (found["n"], found["shared"], found["slates"]) == (300, 300, [300, 300])
    assert found["diff"] == pytest.approx(diffs.mean())
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected.confidence_interval), abs=0.006)


def test_the_slates_of_one_user_are_drawn_together(tmp_path: Path) -> None:
    """Ten users of thirty equal slates each: the interval is that of ten values, not of three hundred."""
    users = np.repeat(np.arange(10), 30)
    incoming = np.full(300, 3)
    found = pair(
        outputs(tmp_path / "a.parquet", incoming, incoming, users), outputs(tmp_path / "b.parquet", incoming, users % 4, users), "recall@1"
    )
    values = (np.arange(10) % 4 == 0).astype(float)
    low, high = scipy.stats.t.interval(0.95, 9, values.mean(), values.std(ddof=1) / math.sqrt(10))
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.07)
    assert found["high"] - found["low"] > 4 * 2 * 1.96 * values.std() / math.sqrt(300)


def test_other_slates_are_compared_by_their_gains(tmp_path: Path) -> None:
    """Against Welch's interval, which for many slates of a user each is the same thing."""
    rng = np.random.default_rng(3)
    incoming_a, one = rng.integers(0, 10, (2, 800))
    incoming_b, other = rng.integers(0, 10, (2, 500))
    other = np.minimum(other, incoming_b)
    found = pair(
        outputs(tmp_path / "a.parquet", incoming_a, one, np.arange(800)), outputs(tmp_path / "b.parquet", incoming_b, other, np.arange(500))
    )
    gains = [ndcg(one) - ndcg(incoming_a), ndcg(other) - ndcg(incoming_b)]
    welch = scipy.stats.ttest_ind(gains[1], gains[0], equal_var=False).confidence_interval(0.95)
    assert not found["paired"] and found["slates"] == [800, 500] and found["n"] == 1300 and found["shared"] < 200
    assert found["diff"] == pytest.approx(gains[1].mean() - gains[0].mean())
    assert (found["low"], found["high"]) == pytest.approx((welch.low, welch.high), abs=0.006)


def test_pairing_takes_the_spread_of_the_slates_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    incoming = rng.integers(0, 10, 300)
    one = rng.integers(0, 10, 300)
    other = np.maximum(one - (rng.random(300) < 0.3), 0)
    a, b = outputs(tmp_path / "a.parquet", incoming, one), outputs(tmp_path / "b.parquet", incoming, other)
    moved = outputs(tmp_path / "c.parquet", np.roll(incoming, 1), np.roll(other, 1))
    paired, apart = pair(a, b), pair(a, moved)
    assert paired["paired"] and not apart["paired"]
    assert paired["diff"] == pytest.approx(apart["diff"])
    assert 2 * (paired["high"] - paired["low"]) < apart["high"] - apart["low"]


def test_candidates_decide_where_they_are_known(tmp_path: Path) -> None:
    """Equal users, places and ranks: only the slates' own table tells that one candidate is another."""
    incoming = np.array([1, 2, 3, 4])
    a, b = (outputs(tmp_path / f"{name}.parquet", incoming, incoming - 1) for name in "ab")
    same = [[place, 7, 8] for place in range(4)]
    known = [slates(tmp_path / "sa.parquet", same), slates(tmp_path / "sb.parquet", [*same[:3], [3, 7, 9]])]

    def run(first: Path | None, second: Path | None) -> dict:
        runs = [read_run("a", a, first), read_run("b", b, second)]
        return compare(*(measure(one, "rl", "mrr") for one in runs), "rl", "mrr", Resampling(200, 1))

    assert run(None, None)["paired"] and run(known[0], known[0])["paired"]
    differing = run(*known)
    assert (differing["paired"], differing["shared"], differing["shared_by"]) == (False, 3, "user, target and candidates")
    folder = tmp_path / "project/data"
    inside = outputs(folder / "evaluate/outputs.parquet", incoming, incoming - 1)
    (folder / "retrieve").mkdir()
    slates(folder / "retrieve/slates.parquet", same)
    assert "content" in read_run("p", inside).answers.columns


def test_a_run_on_some_of_the_slates_is_paired_on_these(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    incoming, one, other = rng.integers(0, 10, (3, 200))
    found = pair(outputs(tmp_path / "a.parquet", incoming, one), outputs(tmp_path / "b.parquet", incoming[:120], other[:120]))
    assert (found["paired"], found["n"], found["slates"]) == (True, 120, [200, 120])
    assert found["diff"] == pytest.approx((ndcg(other[:120]) - ndcg(one[:120])).mean())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_turned_round_it_says_the_opposite(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("turned")
    rng = np.random.default_rng(seed)
    incoming, other_incoming, one, other = rng.integers(0, 10, (4, 40))
    a = outputs(folder / "a.parquet", incoming, one)
    for b in (outputs(folder / "b.parquet", incoming, other), outputs(folder / "c.parquet", other_incoming, other)):
        there, back = pair(a, b, resamples=400), pair(b, a, resamples=400)
        assert there["low"] <= there["diff"] <= there["high"]
        assert (there["diff"], there["paired"]) == (pytest.approx(-back["diff"]), back["paired"])
        assert (there["low"], there["high"]) == pytest.approx((-back["high"], -back["low"]), abs=0.03)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    incoming = np.full(60, 2)
    a, b = outputs(tmp_path / "a.parquet", incoming, incoming), outputs(tmp_path / "b.parquet", incoming, np.arange(60) // 2 % 2)
    main(["--json", str(a), str(b), "--metric", "recall@1"])
    found = json.loads(capsys.readouterr().out)
    (only,) = found["pairs"]
    assert {"a", "b", "model", "metric", "diff", "low", "high", "paired", "n"} <= set(only)
    assert (only["a"], only["b"], only["model"], only["diff"], only["n"]) == (str(a), str(b), "rl", 0.5, 60)
    assert [row["gain"] for row in found["runs"]] == [0.0, 0.5]
    main([str(a), str(b), "--metric", "recall@1", "--name", "old", "--name", "new"])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("new minus old, rl: +0.5000 [") and "better; paired on 60 slates" in last
    for words, message in (
        ([str(a)], "give two or more runs"),
        ([str(a), str(tmp_path / "gone")], "no such file"),
        ([str(a), str(b), "--model", "sft"], "no answers of the model 'sft'"),
        ([str(a), str(b), "--name", "one"], "--name and --slates once for each"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(words)
