"""The card of logged slates: what metrics.json says, to be read."""

from stages.retrieve.metrics import GivenFigures

ORDERS = {
    "shown": "The candidates stand in the order in which users saw them. What stands high is taken more often because it is seen more "
    "often: an initial ranking that was shown may look better on these slates than it is, and so may a model that copies it.",
    "shuffled": "The log lists the candidates in another order than users saw. The initial ranking is that list, which says nothing.",
}
PROPENSITIES = {
    "none": "none, so all figures are of what was taken, not of what was wanted",
    "logged": "logged with the slates",
    "power": "assumed: (1 / place) ** retrieve.given.power. An assumption, not a measurement",
    "randomised": "estimated from the training slates, by place, as if their order had been drawn at random",
}


def card(figures: GivenFigures) -> str:
    converted = figures.converted or {}
    rows = [
        f"{name}: {count:,} rows{f', read from {converted[name]}' if name in converted else ''}" for name, count in figures.files.items()
    ]
    refused = [f"{file}: {reason}: {count:,}" for file, reasons in figures.refused.items() for reason, count in reasons.items()]
    left_out = [f"{reason}: {count:,}" for reason, count in figures.left_out.items()]
    places = [f"| {row.place} | {row.shown:,} | {row.taken:,} | {row.share:.3f} |" for row in figures.places]
    lines = ["# Logged slates", "", "Read:", "", *_list(rows), "", "Refused, because they cannot be right:", "", *_list(refused), ""]
    lines += ["Left out:", "", *_list(left_out), ""]
    lines += [
        f"{figures.slates:,} slates, of {figures.candidates_mean:.1f} candidates on average and {figures.candidates_longest} at most. "
        f"In {figures.several_taken:.1%} more than one was taken. Grades of what was taken: "
        + ", ".join(f"{grade}: {count:,}" for grade, count in figures.grades.items())
        + f". Scores: {figures.scores}.",
        "",
        "## Position",
        "",
        ORDERS[figures.order],
        f"Propensities: {PROPENSITIES[figures.propensities]}.",
        "",
        "| place | shown | taken | share |",
        "|---|---|---|---|",
        *places,
    ]
    return "\n".join(lines) + "\n"


def _list(lines: list[str]) -> list[str]:
    return [f"- {line}" for line in lines] or ["- none"]
