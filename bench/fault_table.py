"""The table of the campaign, from its lines."""

from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from fault_kinds import CONTROL

WHAT = {"toy": "a diamond of four quick stages", "nodes": "the diamond on two nodes", "smoke": "the twelve stages, smoke profile"}


def table(lines: list[dict[str, Any]], files: list[Path]) -> str:
    """Markdown."""
    newest = {(line["project"], line["seed"], line["trial"]): line for line in lines}.values()
    controls = [line for line in newest if line["kind"] == CONTROL.name]
    skipped = [line for line in newest if line["outcome"] == "skipped"]
    late = [line for line in newest if line["outcome"] == "ended first"]
    struck = [line for line in newest if line not in controls and line not in skipped and line not in late]
    violated = [line for line in newest if line["violations"]]
    faults = [fault for line in struck for fault in _faults(line)]
    series = [line for line in struck if line.get("more")]
    text = [
        "# Fault campaign\n",
        f"{len(faults)} faults in {len(struck)} trials, {len(violated)} trials with a violation; "
        f"{len(controls)} undisturbed runs between them as a control."
        + (f" {len(late)} more runs ended before their fault." if late else ""),
        f"{sum('inside a write' in fault['kind'] for fault in faults)} of the faults were inside a write. "
        f"In {len(series)} trials several runs were struck one after the other, and one more run had to mend what all of them had left.",
        "`went through`: the struck run itself succeeded. `recovered`: it did not, and one more run after the last fault was enough.",
        "Seconds: of that one more run, at whatever load the machine had.\n",
        "| project | fault | faults | went through | recovered | violations | recovery, median s | longest s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for project, kind in dict.fromkeys((fault["project"], fault["kind"]) for fault in faults):
        subset = [fault for fault in faults if (fault["project"], fault["kind"]) == (project, kind)]
        count = Counter(fault["outcome"].split(",")[0] for fault in subset)
        seconds = [fault["recovery_s"] for fault in subset]
        text.append(
            f"| {project} | {kind} | {len(subset)} | {count['went through']} | {count['recovered']} | {count['violated']} "
            f"| {median(seconds):.0f} | {max(seconds):.0f} |"
        )
    text += ["", *(f"{name}: {what}." for name, what in WHAT.items() if any(line["project"] == name for line in struck))]
    for project in dict.fromkeys(line["project"] for line in struck):
        at = Counter(fault["stage"] for fault in faults if fault["project"] == project)
        text.append(f"Faults of {project} by the stage that had to run: {', '.join(f'{stage} {count}' for stage, count in at.items())}.")
    looks = sum(line.get("looks", 0) for line in struck)
    text.append(f"The outputs were looked at {looks} times while the runs were at work.")
    for project, kind in dict.fromkeys((line["project"], line["kind"]) for line in skipped):
        reason = next(line["hit"] for line in skipped if line["kind"] == kind)
        text.append(f"Left out: {kind} ({project}): {reason}.")
    if violated:
        text.append("\n## Violations\n")
        text += [
            f"- {line['project']}, seed {line['seed']}, trial {line['trial']}: {line['kind']} at {line['stage']} ({line['hit']}): "
            + "; ".join(line["violations"])
            for line in violated
        ]
    seeds = sorted({(line["project"], line["seed"]) for line in newest})
    text.append("\nCommands:\n")
    for project, seed in seeds:
        subset = [line for line in newest if (line["project"], line["seed"]) == (project, seed) and line["trial"] >= 0]
        faults = max(line["trial"] for line in subset) + 1
        note = "" if len(subset) == faults else f"  # of these, --kind {' and '.join(dict.fromkeys(repr(line['kind']) for line in subset))}"
        text.append(f"    python bench/faults.py --project {project} --faults {faults} --seed {seed} --out {project}.jsonl{note}")
    return "\n".join([*text, f"    python bench/faults.py --report {' '.join(file.name for file in files)} > docs/fault-campaign.md"])


def _faults(line: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a trial, one or several, each with the outcome of the trial; that of a run with a fault before its own is never its own alone."""
    return [line, *({**line, **fault} for fault in line.get("more", []))]
