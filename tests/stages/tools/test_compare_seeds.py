import json

import numpy as np
import polars as pl
import pytest

from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import Bootstrap, Resampling
from stages.shared.stats.multi_seed import over_seeds
from stages.tools.compare_seeds import main, over_runs, read_runs

COUNT = 120


def run(folder, ranks, keys=range(COUNT), targets=None, ids=0):
    """A project whose models put the targets at `ranks` (name -> [n]); `keys`: its slates, two a user; `ids`: where their ids start."""
    keys = list(keys)
    targets = [1] * len(keys) if targets is None else targets
    parts = [
        pl.DataFrame(
            {
                "slate": [ids + place for place in range(len(keys))],
                "user": [key // 2 for key in keys],
                "position": [30 + key % 2 for key in keys],
                "model": [name] * len(keys),
                "target_rank": targets,
                "new_rank": list(own),
            }
        )
        for name, own in {"incoming": targets, **ranks}.items()
    ]
    path = folder / "data/evaluate/outputs.parquet"
    path.parent.mkdir(parents=True)
    pl.concat(parts).write_parquet(path)
    return folder


def half_first(count=COUNT, first=0):
    return [0 if (key // 2) % 2 == first else 1 for key in range(count)]


def test_two_runs_by_hand(tmp_path, capsys):
    """Run one lifts all targets from 2 to 1, run two every other user's: R@1 rises by 1 and by 1/2."""
    folders = [run(tmp_path / "a", {"rl": [0] * COUNT, "sft": [1] * COUNT}), run(tmp_path / "b", {"rl": half_first(), "only": [0] * COUNT})]
    found = over_runs(read_runs(folders), "recall@1", "incoming", Resampling(200, 1))
    assert list(found["models"]) == ["rl"] and found["slates"] == COUNT
    own = found["models"]["rl"]
    assert own["each"] == [1.0, 0.5] and own["mean"] == 0.75 and own["sd"] == pytest.approx(np.sqrt(0.125))
    expected = over_seeds(np.array([[1.0] * COUNT, np.array(half_first()) == 0]), Bootstrap(np.arange(COUNT) // 2, 200, 1))
    assert own["ci"] == expected["ci"]
    main([*map(str, folders), "--metric", "recall@1", "--json", "--resamples", "200", "--seed", "1"])
    assert json.loads(capsys.readouterr().out) == found
    main([*map(str, folders), "--metric", "recall@1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "recall@1, difference from incoming, on 120 slates common to all runs" and len(lines) == 3
    assert lines[-1].split()[:5] == ["rl", "+1.0000", "+0.5000", "+0.7500", "0.3536"]


def test_slates_meet_by_user_and_position_whatever_their_ids_and_order(tmp_path):
    ranks = np.arange(COUNT) % 3
    turned = list(reversed(range(COUNT)))
    folders = [run(tmp_path / "a", {"rl": ranks}), run(tmp_path / "b", {"rl": ranks[turned]}, turned, ids=500)]
    found = over_runs(read_runs(folders), "mrr", "incoming", Resampling(100, 1))
    assert found["models"]["rl"]["sd"] == 0
    pairs = over_runs(read_runs(folders), "mrr", "rl", Resampling(100, 1))["models"]["incoming"]
    assert pairs["mean"] == -found["models"]["rl"]["mean"]


def test_only_common_slates_count_and_the_table_says_so(tmp_path, capsys):
    wide = run(tmp_path / "a", {"rl": [0] * 140}, range(140))
    other = run(tmp_path / "b", {"rl": [0] * COUNT}, targets=[2, *[1] * (COUNT - 1)])
    runs = read_runs([wide, other])
    assert (runs.common, runs.of, runs.moved) == (COUNT, [140, COUNT], 1)
    main([str(wide), str(other)])
    text = capsys.readouterr().out
    assert "on 120 slates common to all runs" in text and "The runs have 140, 120 slates" in text
    assert "on 1 of the slates the target came in at another rank" in text


@pytest.mark.parametrize("shift", [30, COUNT])
def test_too_few_common_slates_name_the_remedy(tmp_path, shift):
    folders = [run(tmp_path / "a", {"rl": [0] * COUNT}), run(tmp_path / "b", {"rl": [0] * COUNT}, range(shift, shift + COUNT))]
    with pytest.raises(
        StageError, match=f"{COUNT - shift} slates in common, of 120, 120; keep retrieve.seed .* change sft.seed and rl.seed"
    ):
        read_runs(folders)


def test_small_runs_on_equal_slates_are_no_error(tmp_path):
    folders = [run(tmp_path / name, {"rl": [0] * 6}, range(6)) for name in "ab"]
    assert over_runs(read_runs(folders), "ndcg@5", "incoming", Resampling(50, 0))["slates"] == 6


def test_errors_end_with_a_sentence(tmp_path):
    one = run(tmp_path / "a", {"rl": [0] * COUNT})
    with pytest.raises(SystemExit, match="compare_seeds: give two or more folders"):
        main([str(one)])
    with pytest.raises(SystemExit, match="compare_seeds: give two or more folders, each once"):
        main([str(one), str(tmp_path / "x" / ".." / "a")])
    with pytest.raises(SystemExit, match=r"outputs\.parquet: no such file"):
        main([str(one), str(tmp_path / "gone")])
    other = run(tmp_path / "b", {"sft": [0] * COUNT})
    with pytest.raises(SystemExit, match="no model but 'incoming' in all of"):
        main([str(one), str(other)])
    with pytest.raises(SystemExit, match="no answers of the model 'lambdamart'"):
        main([str(one), str(run(tmp_path / "c", {"rl": [0] * COUNT})), "--against", "lambdamart"])
    old = run(tmp_path / "d", {"rl": [0] * COUNT})
    path = old / "data/evaluate/outputs.parquet"
    pl.read_parquet(path).drop("position").write_parquet(path)
    with pytest.raises(SystemExit, match="without the column 'position'; rerun"):
        main([str(one), str(old)])
