"""Parameter profiles: infra/profiles/default.yaml is complete, every other is laid over it, and params.yaml is the rendered one."""

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


def render(root: Path, profile: str) -> str:
    """The text of params.yaml under `profile`: default.yaml's own text, or that with the overlay's values in place, comments kept."""
    if profile not in profile_names(root):
        raise ProjectError(
            f"unknown profile '{profile}'{nearest(profile, profile_names(root))} (profiles: {', '.join(profile_names(root)) or 'none'})"
        )
    text = read_text(root / PROFILES / "default.yaml", "every profile is laid over it")
    if profile != "default":
        source = f"{PROFILES / profile}.yaml"
        overlay = parse(read_text(root / source, ""), source, round_trip=True) or {}  # numbers keep the form they are written in
        if not isinstance(overlay, dict):
            raise ProjectError(f"{source}: a mapping of sections is expected")
        document = parse(text, "default.yaml", round_trip=True)
        if overlay:
            deep_merge(document, overlay, source, "default.yaml", empty_takes_any=True)
            text = dump(document)
    _same_in_both_dialects(text, profile)
    return text


def apply(root: Path, profile: str, discard_edits: bool = False) -> list[str]:
    """Makes params.yaml the rendered `profile`; returns what changed, one line a key. A file with equal values is left untouched.

    ProjectError when that would lose edits: params.yaml is neither a rendered profile nor what git HEAD holds.
    """
    text = render(root, profile)
    rendered, path = parse(text, profile), root / PARAMS
    if not path.exists():
        write_text(path, text)
        return [f"{PARAMS} written from the profile {profile}"]
    current = parse(read_text(path, ""), PARAMS)
    changes = list(differences(current, rendered))
    if not changes:
        return []
    if not discard_edits:
        _refuse_if_edited(root, profile, current)
    write_text(path, text)
    return [f"{key or PARAMS}: {format_value(old)} -> {format_value(new)}" for key, old, new in changes]


def matching_profile(root: Path) -> str | None:
    """The profile that params.yaml equals, if any."""
    path = root / PARAMS
    current = parse(read_text(path, ""), PARAMS) if path.exists() else None
    return next((name for name in profile_names(root) if parse(render(root, name), name) == current), None)


def _refuse_if_edited(root: Path, profile: str, current: object) -> None:
    if matching_profile(root):
        return  # it is a profile as it was rendered, so another rendering brings it back
    head = git_or_none(root, "show", f"HEAD:./{PARAMS}")
    # Without a committed version, edits are what differs from the default.
    base = parse(render(root, "default"), "default") if head is None else parse(head, f"HEAD:{PARAMS}")
    edits = [key for key, _, _ in differences(base, current)]
    if edits:
        raise ProjectError(
            f"{PARAMS} has edits that the profile {profile} would overwrite: {', '.join(edits)}. "
            f"Commit or undo them, or drop them with: gr2 run --profile {profile} --discard-edits"
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
