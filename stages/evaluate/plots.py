"""The report's figures as inline SVG: text stays text, colours are the page's CSS variables, equal numbers give equal bytes."""

import io
import re
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from stages.evaluate.bootstrap import INCOMING
from stages.shared.errors import StageError

WIDTH = 5.0  # inches = 360 points, about the width of a phone in CSS pixels: text is shown there at the size given here
LABELS = {
    "incoming": "Incoming order",
    "popularity": "Popularity",
    "last_item": "Nearest to the last item",
    "lambdamart": "LambdaMART",
    "fusion": "Rank fusion",
    "oracle": "Oracle",
    "sft": "SFT",
    "sft_no_reasoning": "SFT without reasoning",
    "rl": "RL",
    "quantized": "Quantized",
    "random": "Random order",
}
# Colours nobody would choose, each standing for a variable of the page's style sheet until the SVG is written.
INK, MUTED, GRID, ACCENT, GOOD, BAD, SURFACE = (f"#0102{code:02x}" for code in range(3, 10))
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", ACCENT: "accent", GOOD: "good", BAD: "bad", SURFACE: "surface"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
}


def label(name: str) -> str:
    """A model's name as a reader sees it."""
    return LABELS.get(name, name.replace("_", " "))


def verdict_colour(low: float, high: float) -> str:
    """Of an interval of a gain: above zero, below zero, or neither."""
    return GOOD if low > 0 else BAD if high < 0 else MUTED


def forest(models: Mapping[str, Any], metric: str = "ndcg@5") -> str:
    """Gain over the incoming order with its interval, one row a model."""
    names = [name for name in models if name not in (INCOMING, "oracle")]  # the oracle's gain would press the others together
    with mpl.rc_context(_STYLE):
        figure, axes = _canvas(height=0.75 + 0.44 * len(names))
        axes.axvline(0, color=INK, linewidth=1)
        for row, name in enumerate(names):
            (low, high), diff = models[name][metric]["diff_ci"], models[name][metric]["diff"]
            colour = verdict_colour(low, high)
            axes.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
            axes.plot(diff, row, "o", color=colour, markersize=6, markeredgecolor=SURFACE, markeredgewidth=1)
            axes.text(1.02, row, signed(diff), transform=axes.get_yaxis_transform(), va="center", fontsize=10)
        axes.set_yticks(range(len(names)), [_two_lines(name) for name in names], color=INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.margins(x=0.06)
        axes.set_xlabel(f"{metric_label(metric)}, gain over the incoming order")
        axes.grid(axis="x")
        return _svg(figure, "forest")


def recall_bars(models: Mapping[str, Any], slate_size: int) -> str:
    """Recall at 1, 3 and 5, one panel each; a dashed line marks what a blind order gets, k / slate_size."""
    names = list(models)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, 0.75 + 0.4 * len(names)), layout="constrained")
        for axes, k in zip(figure.subplots(1, 3, sharey=True), (1, 3, 5), strict=True):
            means = [models[name][f"recall@{k}"]["mean"] for name in names]
            bars = axes.barh(range(len(names)), means, height=0.62, color=[MUTED if name == INCOMING else ACCENT for name in names])
            axes.bar_label(bars, [f"{mean:.3f}" for mean in means], padding=2, fontsize=9.5)
            axes.axvline(min(1, k / slate_size), color=INK, linewidth=1, linestyle=(0, (3, 2)))
            axes.set_title(f"Recall@{k}")
            axes.set_xlim(0, max(max(means), k / slate_size) * 1.62)
            axes.set_xticks([])
            axes.set_yticks(range(len(names)), [_two_lines(name) for name in names], color=INK)
            axes.tick_params(length=0)
            axes.spines["bottom"].set_visible(False)
        axes.invert_yaxis()
        return _svg(figure, "recall")


def curve(rows: Sequence[Mapping[str, Any]], column: str, title: str, source: str) -> str:
    """`column` over the column `step`: each value thin, their running mean thick. Values may be text, as csv.DictReader gives them."""
    steps, values = (_column(rows, name, source) for name in ("step", column))
    window = max(1, len(values) // 15)
    padded = np.pad(values, (window, window), mode="edge")
    smooth = np.convolve(padded, np.ones(2 * window + 1) / (2 * window + 1), mode="valid")
    with mpl.rc_context(_STYLE):
        figure, axes = _canvas(height=2.5)
        axes.plot(steps, values, color=ACCENT, linewidth=0.8, alpha=0.45)
        axes.plot(steps, smooth, color=ACCENT, linewidth=2)
        axes.annotate(f"{smooth[-1]:.3g}", (steps[-1], smooth[-1]), (4, 0), textcoords="offset points", va="center", fontsize=10)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.margins(x=0.02)
        axes.grid(axis="y")
        return _svg(figure, f"curve {source}")


def codebook_usage(counts: Sequence[Sequence[int]]) -> str:
    """Items per code, codes sorted from the most to the least used, one panel a level; dashed = every code used alike."""
    with mpl.rc_context(_STYLE):
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
        return _svg(figure, "codebook")


def rank_flow(flow: Sequence[Sequence[int]]) -> str:
    """Where the target goes: of the targets that came in at a rank (row), the share that left at each rank (column)."""
    counts = np.asarray(flow)
    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with mpl.rc_context(_STYLE):
        figure, axes = _canvas(height=4.1)
        for (row, column), share in np.ndenumerate(shares):
            axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=ACCENT, alpha=0.04 + 0.96 * share, linewidth=0))
            if round(share * 100) and size <= 12:
                colour = SURFACE if share > 0.45 else INK
                axes.text(column, row, f"{share * 100:.0f}", ha="center", va="center", fontsize=9.5, color=colour)
        for row in range(size):
            axes.add_patch(Rectangle((row - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=0.9))
            axes.text(size + 0.45, row, f"{counts[row].sum():,}", ha="right", va="center", fontsize=9, color=MUTED)
        axes.set(xlim=(-0.6, size + 0.45), ylim=(size - 0.4, -0.6), xticks=range(size), yticks=range(size))
        ranks = [str(rank + 1) for rank in range(size)]
        axes.set_xticklabels(ranks)
        axes.set_yticklabels(ranks)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("rank after the model: % of the row's targets")
        axes.set_ylabel("rank of the target as it came in")
        axes.set_title("slates", loc="right", color=MUTED, fontsize=9, fontweight="normal")
        return _svg(figure, "flow")


def metric_label(metric: str) -> str:
    return {"ndcg": "NDCG", "recall": "Recall", "mrr": "MRR"}[metric.split("@")[0]] + metric[metric.find("@") :] * ("@" in metric)


def fixed(number: float, digits: int = 3) -> str:
    """So many decimals; never a negative zero."""
    return f"{round(number, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(number: float, digits: int = 3) -> str:
    text = fixed(number, digits)
    return text if text.startswith("−") or not float(text) else f"+{text}"


def _two_lines(name: str) -> str:
    """A long label broken at the space nearest its middle."""
    text = label(name)
    spaces = [place for place, letter in enumerate(text) if letter == " "]
    if len(text) < 15 or not spaces:
        return text
    middle = min(spaces, key=lambda place: abs(2 * place - len(text)))
    return f"{text[:middle]}\n{text[middle + 1 :]}"


def _canvas(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _column(rows: Sequence[Mapping[str, Any]], column: str, source: str) -> Any:
    if not rows or column not in rows[0]:
        found = ", ".join(rows[0]) if rows else "no rows"
        raise StageError(f"the {source} curve has no column '{column}' (found: {found}); rerun: gr2 run {source}")
    return np.array([float(row[column]) for row in rows])


def _svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element to put into HTML: no document header, no ids but those it refers to, no date."""
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>|\sxmlns(:\w+)?=\"[^\"]*\"", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    wanted = set(re.findall(r"#([\w-]+)[\")]", text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in wanted else "", text)
    text = re.sub(r'font-family: [^;"]*; | transform="rotate\(-0 [^"]*"', "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text.strip()
