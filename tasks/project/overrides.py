"""`--set KEY=VALUE`: values for keys of params.yaml, checked against what stands there."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import yaml

from tasks.project.dict_diff import MISSING, differences, format_value, value_at
from tasks.project.profiles import render
from tasks.system.errors import ProjectError, nearest
from tasks.system.yaml_files import dump, parse, read_text, write_text

PARAMS = "params.yaml"
Values = dict[str, object]  # dotted key -> value


def read_settings(root: Path, texts: Sequence[str], rendered: str | None = None) -> dict[str, list[object]]:
    """dotted key -> the values given for it, in the order of the command line. rendered: in place of the text of params.yaml."""
    document = parse(_text(root) if rendered is None else rendered, PARAMS)
    settings: dict[str, list[object]] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ProjectError(f"--set {text}: KEY=VALUE is expected, as rl.alpha=0.1")
        values = settings.setdefault(key, [])
        parsed = _value(document, key, value)
        # The second of two equal experiments would only restore what the first has cached: a slip of the command line.
        if parsed in values:
            raise ProjectError(f"--set {text}: given twice")
        values.append(parsed)
    return settings


def grid(settings: dict[str, list[object]]) -> list[Values]:
    """Every combination of one value a key, the last key varying fastest."""
    return [dict(zip(settings, values, strict=True)) for values in product(*settings.values())]


def single(settings: dict[str, list[object]]) -> Values:
    for key, values in settings.items():
        if len(values) > 1:
            raise ProjectError(f"--set {key}: {len(values)} values; a run takes one of each key, --queue runs them all side by side")
    return {key: values[0] for key, values in settings.items()}


def with_overrides(root: Path, values: Values, rendered: str | None = None) -> tuple[str, list[str]]:
    """params.yaml, or `rendered`, with `values` in place, comments kept; and what changed, a line a key."""
    text = _text(root) if rendered is None else rendered
    document = parse(text, PARAMS, round_trip=True)
    for key, value in values.items():
        *parents, last = key.split(".")
        section = value_at(document, ".".join(parents)) if parents else document
        assert isinstance(section, dict)  # read_settings has refused a key that params.yaml lacks
        section[last] = value
    changed = dump(document)
    changes = [
        f"{key}: {format_value(old)} -> {format_value(new)}" for key, old, new in differences(parse(text, PARAMS), parse(changed, PARAMS))
    ]
    # A round trip may change spaces and quotes: a file whose values stay is not touched.
    return (changed if changes else text), changes


def planned(root: Path, profiles: Sequence[str], texts: Sequence[str]) -> str | None:
    """The text that params.yaml has after `--profile` and then `--set`; None where neither is given."""
    rendered = render(root, *profiles) if profiles else None
    return with_overrides(root, single(read_settings(root, texts, rendered)), rendered)[0] if texts else rendered


def write(root: Path, values: Values) -> list[str]:
    """Writes `values` into params.yaml; returns what changed. A file that holds them already is left untouched."""
    text, changes = with_overrides(root, values)
    if changes:
        write_text(root / PARAMS, text)
    return changes


def experiment_name(values: Values, used_names: set[str]) -> str:
    """A name for an experiment that says what is set, fit for a git reference; with a number behind it when it is among `used_names`."""
    words = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items()]
    base = re.sub(r"[^A-Za-z0-9=_.,+-]+", "-", "_".join(words))
    # Git refuses a reference with two dots, or with a dot or .lock at its end; and keeps each in a file, whose name must not be too long.
    base = re.sub(r"\.{2,}", ".", base).strip(".-")[:100].removesuffix(".lock").rstrip(".-") or "experiment"
    number = 2
    name = base
    while name in used_names:
        name, number = f"{base}-{number}", number + 1
    return name


def override(key: str, value: object) -> str:
    """As `dvc exp run --set-param` wants it (Hydra's grammar): texts in quotes, so that a comma does not make a sweep."""
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if any(isinstance(text, str) and re.search(r'[\\"\n]|\$\{', text) for text in texts):
        raise ProjectError(f'--set {key}: DVC takes no text with a quotation mark, a backslash, a line break or "${{" for an experiment')
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _value(document: dict[str, object], key: str, text: str) -> object:
    current = value_at(document, key)
    if current is MISSING:
        raise ProjectError(f"--set {key}: {PARAMS} has no such key{nearest(key, _leaves(document))}")
    if isinstance(current, dict):
        raise ProjectError(f"--set {key}: it is a section; name a key in it ({', '.join(f'{key}.{name}' for name in current)})")
    new = parse(text, f"--set {key}")
    try:
        yaml_1_1_value = yaml.safe_load(text)
    except yaml.YAMLError:
        yaml_1_1_value = MISSING
    if new != yaml_1_1_value or type(new) is not type(yaml_1_1_value):  # the stages read YAML 1.1, DVC 1.2
        raise ProjectError(f"--set {key}={text}: YAML 1.1 and 1.2 read it differently; write it unambiguously (5.0e-7, 'on', true)")
    if not _same_kind(current, new):
        example = {
            bool: "true or false",
            int: "a whole number",
            float: "a number",
            str: f"a text, as '\"{text}\"'",
            list: "a list, as [1, 2]",
        }
        raise ProjectError(f"--set {key}={text}: {PARAMS} holds {format_value(current)} there; {example[type(current)]} is expected")
    # `--set rl.alpha=1` means 1.0 where 0.5 stands; written as an integer, it would have the next --set of 0.3 refused.
    return float(new) if isinstance(current, float) else new


def _same_kind(current: object, new: object) -> bool:
    if current is None:  # null says nothing of the kind that is expected; the stage checks it
        return not isinstance(new, dict)
    if isinstance(current, float):
        return isinstance(new, int | float) and not isinstance(new, bool)
    return type(current) is type(new)


def _leaves(document: dict[str, object], parent_key: str = "") -> Iterator[str]:
    for key, value in document.items():
        name = f"{parent_key}.{key}" if parent_key else str(key)
        if isinstance(value, dict):
            yield from _leaves(value, name)
        else:
            yield name


def _text(root: Path) -> str:
    return read_text(root / PARAMS, "gr2 run --profile default writes it anew")
