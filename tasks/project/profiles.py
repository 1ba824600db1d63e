"""Parameter profiles: infra/profiles/default.yaml is complete, others are laid over it, and params.yaml is what that gives."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.project.dict_diff import MISSING, differences, format_value
from tasks.system.errors import ProjectError, nearest
from tasks.system.git import git_or_none
from tasks.system.yaml_files import dump, parse, read_text, write_text

PROFILES = Path("infra") / "profiles"
PARAMS = "params.yaml"


def profile_names(root: Path) -> list[str]:
    """The names of the profiles, `default` first."""
    profiles = sorted(path.stem for path in (root / PROFILES).glob("*.yaml"))
    return sorted(profiles, key=lambda name: name != "default")


def render(root: Path, *profiles: str) -> str:
    """The text of params.yaml under `profiles`, laid over each other from left to right: default.yaml's own text, or that with the
    overlays' values in place, comments kept. Of two that set one key, the later counts."""
    known = profile_names(root)
    for name in profiles:
        if name not in known:
            raise ProjectError(f"unknown profile '{name}'{nearest(name, known)} (profiles: {', '.join(known) or 'none'})")
    if repeated := [name for name in known if profiles.count(name) > 1]:
        raise ProjectError(f"profile {repeated[0]}: given twice")
    if "default" in profiles[1:]:
        raise ProjectError("profile default: it is complete, so nothing before it would count; every profile is laid over it anyway")
    text = read_text(root / PROFILES / "default.yaml", "every profile is laid over it")
    document = None
    for name in profiles:
        if overlay := _overlay(root, name, round_trip=True):  # numbers keep the form they are written in
            # Checked against the default itself: what an earlier profile put into an empty mapping closes it to no later one.
            deep_merge(parse(text, "default.yaml"), overlay, f"{PROFILES / name}.yaml", "default.yaml", empty_takes_any=True)
            document = document or parse(text, "default.yaml", round_trip=True)
            _lay_over(document, overlay)
    if document is not None:
        text = dump(document)
    _same_in_both_dialects(text, title(profiles))
    return text


def title(profiles: Sequence[str]) -> str:
    """How messages name a combination of profiles."""
    return " + ".join(profiles) or "default"


def apply(root: Path, *profiles: str, discard_edits: bool = False, text: str | None = None) -> list[str]:
    """Makes params.yaml the rendered `profiles`; returns what changed, one line a key. A file with equal values is left untouched.

    text: the rendered profiles with some values of the command line in place.

    ProjectError when that would lose edits: params.yaml is neither rendered profiles nor what git HEAD holds.
    """
    text = render(root, *profiles) if text is None else text
    rendered, path = parse(text, title(profiles)), root / PARAMS
    if not path.exists():
        write_text(path, text)
        return [f"{PARAMS} written from the profile {title(profiles)}"]
    current = parse(read_text(path, ""), PARAMS)
    changes = list(differences(current, rendered))
    if not changes:
        return []
    if not discard_edits:
        _refuse_if_edited(root, profiles, current)
    write_text(path, text)
    return [f"{key or PARAMS}: {format_value(old)} -> {format_value(new)}" for key, old, new in changes]


def matching_profiles(root: Path) -> list[str]:
    """The fewest profiles that, laid over each other in this order, give params.yaml; [] where none do."""
    path = root / PARAMS
    if not path.exists():
        return []
    current = parse(read_text(path, ""), PARAMS)
    overlays = {name: overlay for name in profile_names(root) if (overlay := _overlay(root, name)) or name == "default"}
    # From the last to the first: a profile can be the next one under those chosen if all that they leave open of it is in params.yaml.
    # Taking one that fits never shuts out another, so there is nothing to go back on.
    chosen: list[str] = []
    while fitting := [name for name in reversed(overlays) if name not in [*chosen, "default"] and _fits(name, chosen, overlays, current)]:
        chosen.insert(0, fitting[0])
    if not _gives(["default", *chosen], overlays, current):
        return []
    for name in list(chosen):
        rest = [other for other in chosen if other != name]
        if _gives(["default", *rest], overlays, current):
            chosen = rest
    return chosen or ["default"]


def _fits(name: str, above: Sequence[str], overlays: dict[str, Any], current: object) -> bool:
    merged = copy.deepcopy(overlays[name])
    for other in above:
        _lay_over(merged, overlays[other])
    # What an overlay lacks is the default's to say.
    return all(old is MISSING for _, old, _ in differences(merged, current))


def _gives(names: Sequence[str], overlays: dict[str, Any], current: object) -> bool:
    merged = copy.deepcopy(overlays[names[0]])
    for name in names[1:]:
        _lay_over(merged, overlays[name])
    return bool(merged == current)


def _lay_over(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    """As deep_merge does, of mappings whose keys are known to be valid."""
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = copy.deepcopy(value)


def _overlay(root: Path, name: str, round_trip: bool = False) -> dict[str, Any]:
    """What the profile `name` sets. With `round_trip`, as it is laid over the text of default.yaml: of that itself, {}."""
    if name == "default" and round_trip:
        return {}
    source = f"{PROFILES / name}.yaml"
    overlay = parse(read_text(root / source, "every profile is laid over default.yaml"), source, round_trip=round_trip) or {}
    if not isinstance(overlay, dict):
        raise ProjectError(f"{source}: a mapping of sections is expected")
    return overlay


def _refuse_if_edited(root: Path, profiles: Sequence[str], current: object) -> None:
    if matching_profiles(root):
        return  # it is profiles as they were rendered, so another rendering brings it back
    head = git_or_none(root, "show", f"HEAD:./{PARAMS}")
    # Without a committed version, edits are what differs from the default.
    base = parse(render(root, "default"), "default") if head is None else parse(head, f"HEAD:{PARAMS}")
    edits = [key for key, _, _ in differences(base, current)]
    if edits:
        options = " ".join(f"--profile {name}" for name in profiles)
        raise ProjectError(
            f"{PARAMS} has edits that the profile {title(profiles)} would overwrite: {', '.join(edits)}. "
            f"Commit or undo them, or drop them with: gr2 run {options} --discard-edits"
        )


def deep_merge(base: Any, overlay: dict[str, Any], source: str, of: str, *, empty_takes_any: bool = False, parent_key: str = "") -> None:
    """Deep merge in place: mappings by key, anything else replaced. ProjectError for a key of `overlay`, from the file `source`, that
    `base`, from the file `of`, lacks; but an empty mapping in it may take any key."""
    for key, value in overlay.items():
        name = f"{parent_key}.{key}" if parent_key else str(key)
        # Else a misspelt key is noticed when the turn of its stage comes, or never.
        if key not in base and (len(base) or not empty_takes_any):
            raise ProjectError(
                f"{source}: {name}: {of} has no such key{nearest(str(key), map(str, base))} (valid: {', '.join(map(str, base))})"
            )
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            deep_merge(base[key], value, source, of, empty_takes_any=empty_takes_any, parent_key=name)
        else:
            base[key] = value


def _same_in_both_dialects(text: str, profile: str) -> None:
    """ProjectError for a value such as 5e-7 or `on`, which YAML 1.2 (read by DVC) and YAML 1.1 (read by the stages) read differently."""
    import yaml

    for key, dvc_value, stage_value in differences(parse(text, profile), yaml.safe_load(text)):
        if dvc_value is not MISSING:  # a key that only one of them sees is the other half of a pair that is reported already
            raise ProjectError(
                f"profile {profile}: {key}: YAML 1.1 reads {stage_value!r}, YAML 1.2 reads {dvc_value!r}; "
                "write it unambiguously (5.0e-7, 'on', true)"
            )
