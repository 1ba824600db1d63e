"""What RL did step by step, as small plots: ways around the reward, and the entropy that it spent for the reward."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stages.report.page.svg import ACCENT, INK, MUTED, STYLE, WIDTH, as_svg, canvas, short

Rows = Sequence[Mapping[str, Any]]
# Column of steps.csv -> title of its panel; those of probes and validations are there where they were made.
PANELS = {
    "identical": "Initial order copied",
    "as_shown": "Shown order copied",
    "adjacent_swap": "Neighbours swapped",
    "valid": "Valid answers",
    "promotion": "Ranks gained",
    "grounded": "Facts quoted right",
    "entropy": "Entropy, nats",
    "length": "Tokens",
    "probe_first_shown": "First shown chosen",
    "validation_reward": "Validation reward",
}
LEAST_EXPLAINED = 0.5  # of the variance, for a ceiling to be drawn
SHARES = ("identical", "as_shown", "adjacent_swap", "probe_first_shown")


def behaviour(rows: Rows) -> str:
    """A panel for each column of PANELS that any row has; "" where there is none."""
    names = [name for name in PANELS if any(name in row for row in rows)]
    if not names:
        return ""
    with mpl.rc_context(STYLE):
        lines = -(-len(names) // 2)
        figure = Figure(figsize=(WIDTH, 0.35 + 1.35 * lines), layout="constrained")
        panels = figure.subplots(lines, 2, squeeze=False, sharex=True).ravel()
        for axes, name in zip(panels, names, strict=False):
            points = [(float(row["step"]), float(row[name])) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), color=ACCENT, linewidth=1.4, marker="o" if len(points) < 20 else "", markersize=3)
            axes.set_title(PANELS[name], fontsize=10)
            if name in SHARES:
                axes.set_ylim(bottom=0, top=max(0.1, 1.1 * max(value for _, value in points)))
            axes.yaxis.set_major_locator(MaxNLocator(3))
            axes.yaxis.set_major_formatter(lambda tick, _: short(tick))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.grid(axis="y")
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        for axes in panels[len(names) - 2 : len(names)]:
            axes.tick_params(labelbottom=True)  # the lowest of each column, also above an empty place
        figure.supxlabel("step", color=MUTED, fontsize=11)
        return as_svg(figure, "rl behaviour")


def entropy(rows: Rows, fit: Mapping[str, float]) -> str:
    """Reward over entropy, a point a step, and R = -a e^H + b; fit: RlEntropyFit. Dashed: its ceiling, where the curve rises to one.

    "" for rows without an entropy.
    """
    if not rows or "entropy" not in rows[0]:
        return ""
    entropy_S, reward_S = (np.array([float(row[name]) for row in rows]) for name in ("entropy", "reward"))
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height=2.5)
        axes.plot(entropy_S, reward_S, "o", color=ACCENT, markersize=4)
        # To H = 0 where the ceiling lies, if there is one.
        line = np.linspace(0.0 if has_ceiling(fit) else entropy_S.min(), entropy_S.max(), 60)
        axes.plot(line, fit["b"] - fit["a"] * np.exp(line), color=INK, linewidth=1)
        if has_ceiling(fit):
            axes.axhline(fit["ceiling"], color=MUTED, linewidth=1, linestyle=(0, (3, 2)))
        axes.set_xlabel("entropy, nats a token")
        axes.set_ylabel("mean reward")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(lambda tick, _: short(tick))
        axes.grid(axis="y")
        return as_svg(figure, "rl entropy")


def has_ceiling(fit: Mapping[str, float]) -> bool:
    """Whether the curve rises to one as entropy falls, and is more than a line through noise."""
    return fit["a"] > 0 and fit["explained"] >= LEAST_EXPLAINED


def entropy_caption(fit: Mapping[str, float]) -> str:
    start = f"RL: reward and entropy, a point a step; R = b − a·exp(H) explains {max(0.0, fit['explained']):.0%} of the reward's variance."
    if has_ceiling(fit):
        return f"{start} Dashed: what is reached when no entropy is left."
    return (
        f"{start} No ceiling can be read from it: {'that is too little' if fit['a'] > 0 else 'the reward does not rise as entropy falls'}."
    )
