"""What the figures and the tables of the report share: names, numbers, colours, and a matplotlib figure as inline SVG."""

import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 5.0  # inches = 360 points, about the width of a phone in CSS pixels: text is shown there at the size given here
LABELS = {
    "incoming": "Initial ranking",
    "popularity": "Popularity",
    "last_item": "Nearest to the last item",
    "lambdamart": "LambdaMART",
    "lambdamart_all_features": "LambdaMART on all features",
    "fusion": "Rank fusion",
    "oracle": "Oracle",
    "sft": "SFT",
    "distil": "Distilled",
    "distil_direct": "Distilled, at once",
    "rl": "RL",
    "quantized": "Quantized",
    "random": "Random order",
}
# Colours nobody would choose, each standing for a variable of the page's style sheet until the SVG is written.
INK, MUTED, GRID, ACCENT, GOOD, BAD, SURFACE = (f"#0102{code:02x}" for code in range(3, 10))
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", ACCENT: "accent", GOOD: "good", BAD: "bad", SURFACE: "surface"}
STYLE: dict[Any, Any] = {
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


def metric_label(metric: str) -> str:
    return {"ndcg": "NDCG", "recall": "Recall", "mrr": "MRR"}[metric.split("@")[0]] + metric[metric.find("@") :] * ("@" in metric)


def fixed(number: float, digits: int = 3) -> str:
    """So many decimals; never a negative zero."""
    return f"{round(number, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(number: float, digits: int = 3) -> str:
    text = fixed(number, digits)
    return text if text.startswith("−") or not float(text) else f"+{text}"


def share(number: float) -> str:
    """A share as a percentage; 100 % and 0 % only where that is exact."""
    text = f"{number * 100:.1f}"
    if text in ("100.0", "0.0"):
        text = text.removesuffix(".0") if number in (0, 1) else {"100.0": "> 99.9", "0.0": "< 0.1"}[text]
    return f"{text} %"


def short(number: float) -> str:
    """A tick of an axis: no more decimals than it has."""
    return f"{number + 0.0:.4g}".replace("-", "−")


def two_lines(name: str) -> str:
    """A long label broken at the space nearest its middle."""
    text = label(name)
    spaces = [place for place, letter in enumerate(text) if letter == " "]
    if len(text) < 15 or not spaces:
        return text
    middle = min(spaces, key=lambda place: abs(2 * place - len(text)))
    return f"{text[:middle]}\n{text[middle + 1 :]}"


def canvas(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def as_svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element to put into HTML: no document header, no ids but those it refers to, no date."""
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>|\sxmlns(:\w+)?=\"[^\"]*\"", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    referenced = set(re.findall(r"#([\w-]+)[\")]", text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in referenced else "", text)
    text = re.sub(r'font-family: [^;"]*; | transform="rotate\(-0 [^"]*"', "", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text.strip()
