"""The report's figures as inline SVG: text stays text, colours are the page's CSS variables, equal numbers give equal bytes."""

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from stages.report.diagnostics.gain_by_rank import METRIC as DECOMPOSED
from stages.report.page.svg import (
    ACCENT,
    GRID,
    INK,
    MUTED,
    STYLE,
    SURFACE,
    WIDTH,
    as_svg,
    canvas,
    fixed,
    label,
    metric_label,
    short,
    signed,
    two_lines,
    verdict_colour,
)
from stages.shared.core.errors import StageError
from stages.shared.stats.bootstrap import INCOMING

ORACLE = "oracle"  # its figures, of one by definition, would press all the others together


def forest(models: Mapping[str, Any], metric: str = "ndcg@5") -> str:
    """Gain over the initial ranking with its interval, one row a model."""
    names = [name for name in models if name not in (INCOMING, ORACLE)]
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height=0.75 + 0.44 * len(names))
        axes.axvline(0, color=INK, linewidth=1)
        for row, name in enumerate(names):
            (low, high), diff = models[name][metric]["diff_ci"], models[name][metric]["diff"]
            colour = verdict_colour(low, high)
            axes.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
            axes.plot(diff, row, "o", color=colour, markersize=6, markeredgecolor=SURFACE, markeredgewidth=1)
            axes.text(1.02, row, signed(diff), transform=axes.get_yaxis_transform(), va="center", fontsize=10)
        axes.set_yticks(range(len(names)), [two_lines(name) for name in names], color=INK)
        # From the top down, in the order of the table.
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(lambda tick, _: short(tick))
        axes.set_xlabel(f"{metric_label(metric)}, gain over the initial ranking")
        axes.grid(axis="x")
        return as_svg(figure, "forest")


def recall_bars(models: Mapping[str, Any], slate_size: int) -> str:
    """Recall at 1, 3 and 5, one panel each; a dashed line marks what a random order gets, k / slate_size. Figures stand at the right."""
    names = [name for name in models if name != ORACLE]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.75 + 0.4 * len(names)), layout="constrained")
        for axes, k in zip(figure.subplots(1, 3, sharey=True), (1, 3, 5), strict=True):
            means = [models[name][f"recall@{k}"]["mean"] for name in names]
            axes.barh(range(len(names)), means, height=0.62, color=[MUTED if name == INCOMING else ACCENT for name in names])
            for row, mean in enumerate(means):
                axes.text(1, row, fixed(mean), transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=9.5)
            axes.axvline(min(1, k / slate_size), color=INK, linewidth=1, linestyle=(0, (3, 2)))
            axes.set_title(f"Recall@{k}")
            axes.set_xlim(0, max(*means, k / slate_size) * 1.75)  # the last third is for the figures
            axes.set_xticks([])
            axes.set_yticks(range(len(names)), [two_lines(name) for name in names], color=INK)
            axes.tick_params(length=0)
            axes.spines["bottom"].set_visible(False)
        axes.invert_yaxis()
        return as_svg(figure, "recall")


def gain_by_rank(rows_by_model: Mapping[str, Sequence[Mapping[str, Any]]], slate_size: int) -> str:
    """What each ranker gains by the initial rank of the target, a row of panels each; rows of gain_by_rank.gains_by_incoming_rank.

    Band: what the rank allows, cut off far from the points; dashed: a random order; points: the ranker, with 95 % intervals.
    """
    titles = {"rank_gain": "ranks gained", DECOMPOSED: metric_label(DECOMPOSED)}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 2.0 * len(rows_by_model)), layout="constrained")
        panels = figure.subplots(len(rows_by_model), 2, squeeze=False, sharex=True)
        for row, (name, rows) in enumerate(rows_by_model.items()):
            for axes, (kind, title) in zip(panels[row], titles.items(), strict=True):
                ranks = [entry["incoming_rank"] + 1 for entry in rows]
                lower, upper, random = ([entry[kind][part] for entry in rows] for part in ("lower", "upper", "random"))
                axes.fill_between(ranks, lower, upper, color=GRID, alpha=0.7, linewidth=0)
                axes.plot(ranks, random, color=MUTED, linewidth=1.2, linestyle=(0, (3, 2)))
                axes.axhline(0, color=INK, linewidth=0.8)
                for rank, entry in zip(ranks, rows, strict=True):
                    interval = entry[kind]["diff_ci"]
                    colour = verdict_colour(*interval) if interval else MUTED
                    if interval:
                        axes.plot([rank, rank], interval, color=colour, linewidth=2, solid_capstyle="butt")
                    axes.plot(rank, entry[kind]["diff"], "o", color=colour, markersize=4)
                axes.set_title(f"{label(name)}:{' ' if len(label(name)) < 12 else chr(10)}{title}", fontsize=10)
                plotted = [*random, *(bound for entry in rows for bound in entry[kind]["diff_ci"] or [entry[kind]["diff"]]), 0.0]
                # The limits follow the points: the band of what a rank allows is so wide that it would flatten them.
                margin = 0.08 * (max(plotted) - min(plotted)) or 1.0
                axes.set_ylim(min(plotted) - margin, max(plotted) + margin)
                axes.set_xlim(0.5, slate_size + 0.5)
                axes.xaxis.set_major_locator(MaxNLocator(min(10, slate_size), integer=True))
                axes.yaxis.set_major_locator(MaxNLocator(6))
                axes.yaxis.set_major_formatter(lambda tick, _: short(tick))
        figure.supxlabel("rank of the target as it came in", color=MUTED, fontsize=11)
        return as_svg(figure, "gain_by_rank")


def curve(rows: Sequence[Mapping[str, Any]], column: str, title: str, source: str) -> str:
    """`column` over the column `step`: each value thin, their running mean thick. Values may be text, as csv.DictReader gives them."""
    steps, values = (_column(rows, name, source) for name in ("step", column))
    window = max(1, len(values) // 15)
    padded = np.pad(values, (window, window), mode="edge")
    # Padded with the edge values: a running mean that begins at zero would look like learning.
    smooth = np.convolve(padded, np.ones(2 * window + 1) / (2 * window + 1), mode="valid")
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height=2.5)
        axes.plot(steps, values, color=ACCENT, linewidth=0.8, alpha=0.45)
        axes.plot(steps, smooth, color=ACCENT, linewidth=2)
        axes.annotate(f"{smooth[-1]:.3g}", (steps[-1], smooth[-1]), (4, 0), textcoords="offset points", va="center", fontsize=10)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.margins(x=0.02)
        axes.grid(axis="y")
        return as_svg(figure, f"curve {source}")


def codebook_usage(counts: Sequence[Sequence[int]]) -> str:
    """Items per code, codes sorted from the most to the least used, one panel a level; dashed = every code used alike."""
    with mpl.rc_context(STYLE):
        rows = (len(counts) + 1) // 2
        figure = Figure(figsize=(WIDTH, 0.35 + 1.55 * rows), layout="constrained")
        panels = figure.subplots(rows, 2, squeeze=False).ravel()
        for level, axes in enumerate(panels):
            if level >= len(counts):
                axes.set_axis_off()
                continue
            used = np.sort(np.asarray(counts[level], dtype=float))[::-1]
            axes.fill_between(np.arange(len(used)), used, step="mid", color=ACCENT, linewidth=0)
            axes.axhline(used.mean(), color=INK, linewidth=1, linestyle=(0, (3, 2)))
            axes.set_title(f"Level {ascii_lowercase[level]}: {(used > 0).mean():.0%} used")
            axes.margins(x=0)
            axes.set_ylim(0)
            axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
            axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        figure.supxlabel("codes, most used first", color=MUTED, fontsize=11)
        return as_svg(figure, "codebook")


def rank_flow(flow: Sequence[Sequence[int]]) -> str:
    """Where the target goes: of the targets that came in at a rank (row), the share that left at each rank (column)."""
    counts = np.asarray(flow)
    size = len(counts)
    # By row: ranks at which few targets came in are as legible as the others.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with mpl.rc_context(STYLE):
        figure, axes = canvas(height=4.1)
        for (row, column), share in np.ndenumerate(shares):
            axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=ACCENT, alpha=0.04 + 0.96 * share, linewidth=0))
            if round(share * 100) and size <= 12:
                # Dark text on a pale cell, pale text on a dark one.
                colour = SURFACE if share > 0.45 else INK
                axes.text(column, row, f"{share * 100:.0f}", ha="center", va="center", fontsize=9.5, color=colour)
        for row in range(size):
            axes.add_patch(Rectangle((row - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=0.9))
            axes.text(size + 0.55, row, f"{counts[row].sum():,}", ha="right", va="center", fontsize=9.5, color=MUTED)
        axes.text(size + 0.55, -0.75, "slates", ha="right", va="bottom", fontsize=9.5, color=MUTED)
        axes.set(xlim=(-0.6, size + 0.55), ylim=(size - 0.4, -0.6), xticks=range(size), yticks=range(size))
        ranks = [str(rank + 1) for rank in range(size)]
        axes.set_xticklabels(ranks)
        axes.set_yticklabels(ranks)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("rank after the model: % of the row's targets")
        axes.set_ylabel("rank of the target as it came in")
        return as_svg(figure, "flow")


def _column(rows: Sequence[Mapping[str, Any]], column: str, source: str) -> Any:
    if not rows or column not in rows[0]:
        columns = ", ".join(rows[0]) if rows else "no rows"
        raise StageError(f"the {source} curve has no column '{column}' (found: {columns}); rerun: gr2 run {source}")
    return np.array([float(row[column]) for row in rows])
