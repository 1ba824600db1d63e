import numpy as np
import polars as pl
import pytest
import scipy.stats

from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import Bootstrap, paired_intervals
from stages.tools import power
from stages.tools.power import intra_user_correlation, main, read_differences, slates_needed, smallest_gain, spread

CONTINUOUS = spread(np.random.default_rng(0).normal(0.05, 0.5, 400), np.repeat(np.arange(200), 2), False)
HITS = spread(np.repeat([1.0, -1.0, 0.0], [40, 25, 335]), np.arange(400), True)


def test_the_paired_z_formula_by_hand():
    """sd 0.5, independent slates: (1.96 + 0.8416)^2 * 0.25 / 0.05^2 = 785."""
    own = power.Spread(n=500, users=500, gain=0.0, sd=0.5, correlation=0.0, design_effect=1.0, discordant=None)
    assert slates_needed(own, 0.05, 0.8, 0.05) == 785
    assert smallest_gain(own, 0.8, 0.05, slates=785) == pytest.approx(0.05, rel=1e-3)


def test_the_mcnemar_formula_by_hand():
    """Discordant 0.2, gain 0.1: (1.96 * sqrt(0.2) + 0.8416 * sqrt(0.19))^2 / 0.01 = 155."""
    own = power.Spread(n=500, users=500, gain=0.1, sd=0.44, correlation=0.0, design_effect=1.0, discordant=0.2)
    assert slates_needed(own, 0.1, 0.8, 0.05) == 155


@pytest.mark.parametrize("own", [CONTINUOUS, HITS], ids=["continuous", "hit or miss"])
def test_the_smallest_gain_needs_as_many_slates_as_there_are(own):
    gain = smallest_gain(own, 0.9, 0.01)
    assert gain is not None and slates_needed(own, gain, 0.9, 0.01) in (own.n, own.n + 1)
    assert slates_needed(own, gain / 2, 0.9, 0.01) > 3.5 * own.n


def test_the_design_effect_is_that_of_the_clustered_variance():
    """With pairs weighted equally the standard error equals, to the digit, that of the sums over users."""
    rng = np.random.default_rng(1)
    cluster = rng.permutation(np.repeat(np.arange(150), rng.integers(1, 7, 150)))
    diff = rng.normal(0.1, 0.4, 150)[cluster] + rng.normal(0, 0.5, len(cluster))
    own = spread(diff, cluster, False)
    rest = diff - diff.mean()
    of_user = [rest[cluster == user].sum() for user in range(150)]
    n = len(diff)
    assert own.standard_error == pytest.approx(np.sqrt(np.sum(np.square(of_user))) / n * np.sqrt(n / (n - 1)))
    low, high = paired_intervals(diff[:, None], Bootstrap(cluster, 4000, 2))[0]
    assert own.standard_error == pytest.approx((high - low) / 2 / 1.976, rel=0.05)


def test_the_correlation_within_a_user_is_that_of_all_pairs():
    rng = np.random.default_rng(3)
    index = np.repeat(np.arange(4000), 3)
    diff = rng.normal(0, 0.5, 4000)[index] + rng.normal(0, 1.0, 12000)
    assert intra_user_correlation(diff, index) == pytest.approx(0.25 / 1.25, abs=0.02)
    few, users = diff[:12], index[:12]
    rest = few - few.mean()
    products = [rest[i] * rest[j] for i in range(12) for j in range(12) if i != j and users[i] == users[j]]
    assert intra_user_correlation(few, users) == pytest.approx(np.mean(products) / few.var())
    assert intra_user_correlation(few, np.arange(12)) == 0.0
    assert spread(np.array([1.0, -1, 1, -1]), np.array([0, 0, 1, 1]), False).design_effect == 1.0  # below zero is not believed


@pytest.mark.parametrize("gain", [0.05, 0.1])
def test_as_many_slates_as_said_show_the_gain_as_often_as_said(gain):
    """Users of four slates who agree with themselves; the test is Student's over the users' means."""
    rng = np.random.default_rng(4)

    def draw(users, runs):
        return rng.normal(0, 0.3, (runs, users, 1)) + rng.normal(0, 0.4, (runs, users, 4))

    pilot = draw(2000, 1)[0]
    own = spread(pilot.ravel(), np.repeat(np.arange(2000), 4), False)
    users = slates_needed(own, gain, 0.8, 0.05) // 4
    p = scipy.stats.ttest_1samp(draw(users, 1500).mean(axis=2) + gain, 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.035)


@pytest.mark.parametrize(("discordant", "gain"), [(0.15, 0.04), (0.3, 0.1)])
def test_as_many_slates_as_said_show_a_gain_in_hits(discordant, gain):
    own = power.Spread(n=1000, users=1000, gain=0.0, sd=1.0, correlation=0.0, design_effect=1.0, discordant=discordant)
    slates = slates_needed(own, gain, 0.8, 0.05)
    shares = [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant]
    won, lost, _ = np.random.default_rng(5).multinomial(slates, shares, size=4000).T
    z = (won - lost) / np.sqrt(won + lost)  # McNemar's statistic without a correction; the exact test is a little weaker
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(0.8, abs=0.025)


def test_what_cannot_be_seen_is_said():
    with pytest.raises(StageError, match=r"--gain 0.2 is more than the share of slates .* disagree, 0.1625"):
        slates_needed(HITS, 0.2, 0.8, 0.05)
    rare = spread(np.repeat([1.0, 0.0], [1, 49]), np.arange(50), True)
    assert smallest_gain(rare, 0.8, 0.05) is None
    with pytest.raises(StageError, match="0 on every slate"):
        slates_needed(spread(np.zeros(9), np.arange(9), False), 0.1, 0.8, 0.05)
    for options in ((0.8, 0.0), (1.0, 0.05), (0.02, 0.05)):
        with pytest.raises(StageError, match="both lie between 0 and 1"):
            slates_needed(CONTINUOUS, 0.1, *options)
    with pytest.raises(StageError, match="--gain -1: give the gain"):
        slates_needed(CONTINUOUS, -1, 0.8, 0.05)
    with pytest.raises(StageError, match=r"4 slates of 1 user\(s\)"):
        spread(np.arange(4.0), np.zeros(4), False)


def answers(model, ranks, slates=range(6), incoming=(3, 3, 3, 3, 3, 3)):
    users = [slate // 2 for slate in slates]
    return pl.DataFrame({"slate": list(slates), "user": users, "model": model, "target_rank": list(incoming), "new_rank": ranks})


def write(folder, *tables):
    path = folder / "data/evaluate/outputs.parquet"
    path.parent.mkdir(parents=True)
    pl.concat(tables).write_parquet(path)
    return path


def test_answers_are_paired_by_slate(tmp_path):
    shuffled = answers("rl", [0, 3, 1, 3, 3, 2]).sample(fraction=1.0, shuffle=True, seed=1)
    path = write(tmp_path, answers("incoming", [3] * 6), shuffled)
    diff, users = read_differences(path, "rl", "incoming", "mrr")
    np.testing.assert_allclose(diff, [0.75, 0, 0.25, 0, 0, 1 / 3 - 0.25])
    assert users.tolist() == [0, 0, 1, 1, 2, 2]
    assert read_differences(path, "rl", "incoming", "rank_gain")[0].tolist() == [3, 0, 2, 0, 0, 1]


def test_tables_that_do_not_fit_are_errors_that_name_the_row(tmp_path):
    path = write(
        tmp_path, answers("incoming", [3] * 6), answers("rl", [0] * 5, range(5), [3] * 5), answers("twice", [0] * 6, [0, 1, 2, 3, 4, 4])
    )
    with pytest.raises(StageError, match=r"no answers of the model 'sft' \(it has: incoming, rl, twice\)"):
        read_differences(path, "sft", "incoming", "mrr")
    with pytest.raises(StageError, match="'rl' and 'incoming' answered different slates"):
        read_differences(path, "rl", "incoming", "mrr")
    with pytest.raises(StageError, match="'twice' answers the slate 4 more than once"):
        read_differences(path, "twice", "incoming", "mrr")
    pl.read_parquet(path).drop("user").write_parquet(path)
    with pytest.raises(StageError, match=r"outputs\.parquet: without the column 'user'; rerun: gr2 run evaluate"):
        read_differences(path, "rl", "incoming", "mrr")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StageError, match=r"outputs\.parquet: not a readable Parquet file .*\); rerun: gr2 run evaluate"):
        read_differences(path, "rl", "incoming", "mrr")
    with pytest.raises(StageError, match="no such file; run the stage that makes it: gr2 run evaluate"):
        read_differences(tmp_path / "nothing.parquet", "rl", "incoming", "mrr")


def test_the_command_says_what_is_seen_now_and_what_is_needed(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(6)
    incoming = rng.integers(0, 10, 200)
    new = np.where(rng.random(200) < 0.2, 0, incoming)
    write(tmp_path, *(answers(name, ranks.tolist(), range(200), incoming) for name, ranks in (("incoming", incoming), ("rl", new))))
    monkeypatch.chdir(tmp_path)
    main(["--gain", "0.05", "--metric", "recall@1", "--power", "0.9"])
    text = capsys.readouterr().out
    own = spread(*read_differences(power.OUTPUTS, "rl", "incoming", "recall@1"), True)
    assert text.startswith("recall@1 of rl against incoming")
    assert "now: 200 slates of 100 users (2.00 a user)" in text
    assert f"smallest gain visible now: {smallest_gain(own, 0.9, 0.05):.4f} (power 0.9, alpha 0.05 two-sided)" in text
    assert f"needed for a gain of 0.05: {slates_needed(own, 0.05, 0.9, 0.05):,} slates" in text
    with pytest.raises(SystemExit, match=r"gr2 power: data/evaluate/outputs\.parquet: no answers of the model 'x'"):
        main(["--gain", "0.05", "--model", "x"])
