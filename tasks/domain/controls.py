"""Controls: runs of the pipeline that must show no gain. infra/controls/NAME.yaml says what is changed and what must not be better."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.project.dict_diff import differences, format_value
from tasks.project.profiles import deep_merge
from tasks.system.errors import ProjectError, nearest
from tasks.system.yaml_files import dump, parse, read_text

CONTROLS = Path("infra") / "controls"
PARAMS = "params.yaml"
METRICS = Path("data") / "report" / "metrics.json"
METRIC = "ndcg@5"
INCOMING = "incoming"
KEYS = {"purpose", "params", "no_gain"}


@dataclass(frozen=True)
class Control:
    """`no_gain`: pairs (model, against), the differences that must not lie clear above zero."""

    name: str
    purpose: str
    params: dict[str, object]
    no_gain: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """The difference in NDCG@5 of `model` minus `against` over `n` slates, with its 95 % interval."""

    model: str
    against: str
    n: int
    diff: float
    diff_ci: tuple[float, float]
    gain: bool

    def __str__(self) -> str:
        low, high = self.diff_ci
        verdict = "GAIN" if self.gain else "no gain"
        return f"{self.model} against {self.against}: NDCG@5 {self.diff:+.4f} [{low:+.4f}, {high:+.4f}], n {self.n}: {verdict}"


@dataclass(frozen=True)
class Verdict:
    control: str
    purpose: str
    metric: str
    passed: bool
    comparisons: tuple[Comparison, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def control_names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / CONTROLS).glob("*.yaml"))


def read_control(root: Path, name: str) -> Control:
    if name not in control_names(root):
        raise ProjectError(
            f"unknown control '{name}'{nearest(name, control_names(root))} (controls: {', '.join(control_names(root)) or 'none'})"
        )
    source = f"{CONTROLS / name}.yaml"
    document = parse(read_text(root / source, ""), source)
    # A misspelt no_gain must not make a control that compares nothing and passes.
    if not isinstance(document, dict) or set(document) != KEYS:
        actual_keys = ", ".join(map(str, document)) if isinstance(document, dict) else type(document).__name__
        raise ProjectError(f"{source}: the keys {', '.join(sorted(KEYS))} are expected (got {actual_keys})")
    params, pairs = document["params"], document["no_gain"]
    if not isinstance(params, dict):
        raise ProjectError(f"{source}: params: a mapping of sections is expected")
    if not isinstance(pairs, list) or not pairs or any(not isinstance(pair, dict) or set(pair) != {"model", "against"} for pair in pairs):
        raise ProjectError(f"{source}: no_gain: a list of {{model: NAME, against: NAME}} is expected")
    return Control(name, str(document["purpose"]), params, tuple((str(pair["model"]), str(pair["against"])) for pair in pairs))


def params_under(root: Path, control: Control) -> tuple[str, list[str]]:
    """params.yaml under `control`: its text with the control's values in place, and what changed, a line a key."""
    text = read_text(root / PARAMS, "gr2 run --profile default writes it anew")
    document = parse(text, PARAMS, round_trip=True)
    deep_merge(document, control.params, f"{CONTROLS / control.name}.yaml", PARAMS)
    changed = dump(document)
    changes = [
        f"{key}: {format_value(old)} -> {format_value(new)}" for key, old, new in differences(parse(text, PARAMS), parse(changed, PARAMS))
    ]
    return (changed if changes else text), changes  # a round trip may change spaces and quotes


def judge_control(root: Path, control: Control) -> Verdict:
    """The verdict on `control` by the evaluation of the run at `root`. ProjectError when a comparison is missing: nothing is shown then."""
    file = root / METRICS
    try:
        metrics = json.loads(read_text(file, "the evaluation wrote no metrics"))
    except json.JSONDecodeError as error:
        raise ProjectError(f"{file}: not valid JSON: {error}") from None
    comparisons = tuple(_comparison(metrics, model, against, control.name) for model, against in control.no_gain)
    return Verdict(control.name, control.purpose, METRIC, not any(comparison.gain for comparison in comparisons), comparisons)


def _comparison(metrics: dict[str, Any], model: str, against: str, control: str) -> Comparison:
    models, contrasts = metrics.get("models", {}), metrics.get("contrasts", {})
    section, name = (models, model) if against == INCOMING else (contrasts, f"{model}-{against}")
    place = f"{METRICS}: the control {control} compares {model} against {against}"
    if name not in section or model not in models:
        raise ProjectError(f"{place}, which was not evaluated{nearest(name, section)} (there are: {', '.join(section)})")
    contrast = section[name].get(METRIC, {})
    n, diff, interval = models[model].get("n"), contrast.get("diff"), contrast.get("diff_ci")
    # NaN compares as false with everything, and would pass as "no gain".
    if not n or not isinstance(interval, list) or len(interval) != 2 or not all(_finite(value) for value in (diff, *interval)):
        raise ProjectError(f"{place}, and {METRIC} has no difference with an interval there (n {n}, {diff}, {interval})")
    return Comparison(model, against, n, diff, (interval[0], interval[1]), gain=interval[0] > 0)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
