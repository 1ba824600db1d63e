"""`${section.key}` in dvc.yaml, filled in from params.yaml as DVC does it."""

import re
from functools import cached_property
from pathlib import Path

from tasks.project.dict_diff import MISSING, value_at
from tasks.system.errors import ProjectError, nearest
from tasks.system.yaml_files import parse, read_text

PARAMS = "params.yaml"
DEFAULT = Path("infra") / "profiles" / "default.yaml"
TEMPLATE = re.compile(r"(?<!\\)\$\{(.*?)\}")  # as in dvc.parsing.interpolate


class Templates:
    """Fills templates in for the project at `root`; params.yaml is read at the first one. `params`: the text that it is about to have."""

    def __init__(self, root: Path, params: str | None = None):
        self.root, self._text = root, params

    def filled(self, text: str, place: str) -> str:
        """`text` with the values in place. `place` says where in dvc.yaml it stands."""
        return TEMPLATE.sub(lambda match: self._value(match[1].strip(), f"dvc.yaml: {place}: {match[0]}"), text)

    def items(self, value: object, place: str) -> list[str]:
        """Of `foreach`: a list of texts and numbers, written out or named as `${section.key}`. ProjectError for anything else."""
        if isinstance(value, str) and (match := TEMPLATE.fullmatch(value)):
            found: object = self.section(*match[1].strip().split("."))
            place = f"{PARAMS}: {match[1].strip()}"
            value = found if found != {} else self._value(match[1].strip(), place)
        if not isinstance(value, list) or not all(isinstance(item, str | int) and not isinstance(item, bool) for item in value):
            raise ProjectError(f"{place}: a list of numbers or names is expected, as [0, 1, 2] (got {value!r})")
        return [str(item) for item in value]

    def keys(self, text: str) -> list[str]:
        """The keys of params.yaml that `text` names."""
        return [match[1].strip() for match in TEMPLATE.finditer(text)]

    def section(self, *keys: str) -> object:
        """What params.yaml has under `keys`; an empty mapping where it, or the file, has nothing."""
        # A dvc.yaml without templates needs no params.yaml.
        value = {} if self._text is None and not (self.root / PARAMS).exists() else self._params
        for key in keys:
            value = value.get(key, {}) if isinstance(value, dict) else {}
        return value

    @cached_property
    def _params(self) -> object:
        missing = "dvc.yaml names values of it; gr2 run --profile default writes it anew"
        return parse(read_text(self.root / PARAMS, missing) if self._text is None else self._text, PARAMS)

    def _value(self, key: str, place: str) -> str:
        value = self._params
        parent_key = ""
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                near = nearest(part, map(str, value)) if isinstance(value, dict) else ""
                section = f"in {parent_key}" if parent_key else "at its top"
                raise ProjectError(f"{place}: {PARAMS} has no '{part}' {section}{near}{_default_hint(self.root, key)}")
            value = value[part]
            parent_key = f"{parent_key}.{part}" if parent_key else part
        if isinstance(value, bool):  # DVC writes true and false, Python would write True
            return str(value).lower()
        if not isinstance(value, str | int | float) or value == "":
            raise ProjectError(
                f"{PARAMS}: {key}: a text or a number is expected (got {value!r}), which dvc.yaml names as a path"
                f"{_default_hint(self.root, key)}"
            )
        return str(value)


def default_value(root: Path, key: str) -> object:
    """What the profile default gives for the dotted `key`; None where it has none, or the project has no such profile."""
    path = root / DEFAULT
    value = value_at(parse(read_text(path, ""), str(DEFAULT)), key) if path.exists() else MISSING
    return None if value is MISSING else value


def _default_hint(root: Path, key: str) -> str:
    """The way out for a params.yaml of an earlier release, whose sections, keys or values have been renamed since."""
    value = default_value(root, key)
    return "" if value is None else f"; {DEFAULT} has {value!r} (CHANGELOG.md lists what was renamed)"
