"""Parts of the report that need a little thought before the template: the banner of a control run, groups of examples, who pays."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from stages.report.diagnostics.gain_by_rank import METRIC, gain_decomposition
from stages.report.page.svg import label, metric_label, signed

# Kind of an example -> its heading; the page shows the kinds in this order, and any other kind last.
GROUPS = {
    "improved": "Improved: the target went up",
    "got worse": "Got worse: the target went down",
    "kept": "The target kept its rank",
    "invalid": "Invalid output",
}


class Grouped(Protocol):
    @property
    def group(self) -> str: ...


E = TypeVar("E", bound=Grouped)


def grouped(examples: Sequence[E]) -> dict[str, list[E]]:
    """Heading -> its examples; kinds without any are left out."""
    groups = [*GROUPS, *dict.fromkeys(example.group for example in examples if example.group not in GROUPS)]
    by_heading = {GROUPS.get(kind, kind or "Slates"): [example for example in examples if example.group == kind] for kind in groups}
    return {heading: members for heading, members in by_heading.items() if members}


def control_notices(params: Mapping[str, Any], summary: Mapping[str, Any], subject: str, headline: str) -> list[str]:
    """What makes a run a control, and whether it shows the gain that it must not show. Empty for any other run."""
    notices = []
    if _get(params, "rl", "reward") == "random":
        gap = summary["contrasts"].get(f"{subject}-sft")
        expectation = f"it must show no gain of {label(subject)} over {label('sft')}"
        notices.append(f"This is a control run: RL was rewarded at random (rl.reward: random); {expectation}.{_finding(gap, headline)}")
    if _get(params, "retrieve", "labels") == "permuted":
        gap = summary["models"].get(subject)
        reason = "the targets of the training slates are permuted (retrieve.labels: permuted)"
        notices.append(f"This is a control run: {reason}; it must show no gain over the initial ranking.{_finding(gap, headline)}")
    return notices


def decomposition_sentences(gain_by_rank: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """For each ranker, and for a random order: how its difference splits into targets that came in first and the others."""
    split = {label(name): gain_decomposition(rows) for name, rows in gain_by_rank.items()}
    if split:
        split["A random order"] = gain_decomposition(next(iter(gain_by_rank.values())), "random")  # of the same slates for every ranker
    return [
        f"{name}: {metric_label(METRIC)} {signed(sum(terms.values()))} over all slates is {signed(terms['first'])} from targets that "
        f"came in first and {signed(terms['others'])} from the others."
        for name, terms in split.items()
    ]


def _finding(gap: Mapping[str, Any] | None, headline: str) -> str:
    if gap is None:
        return " That was not measured here."
    # The lower bound: a control may lie above zero by chance, but not clear of it.
    if gap[headline]["diff_ci"][0] > 0:
        return " It shows one: find out why before trusting any other run of this pipeline."
    return " It shows none."


def _get(params: Mapping[str, Any], section: str, key: str) -> Any:
    values = params.get(section)
    return values.get(key) if isinstance(values, Mapping) else None
