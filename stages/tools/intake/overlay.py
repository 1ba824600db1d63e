"""The profile that `gr2 init` writes: infra/profiles/NAME.yaml, with the reason behind each line."""

import json
import os
import re
from pathlib import Path
from typing import Any

from stages.shared.core.errors import StageError

PROFILES = Path("infra") / "profiles"
MARK = "# Written by gr2 init"
# Without titles the text of an item is its id, which says nothing: what users took one after the other tells items apart. Such vectors lie
# in a few clusters; k-means leaves no code unused there, where the autoencoder's codebooks may stay below tokenize.usage_gate.
NO_TITLES: dict[str, Any] = {"embed": {"collaborative": {"mode": "concat", "weight": 0.9}}, "tokenize": {"method": "rqkmeans"}}


def profile_name(folder: Path, given: str) -> str:
    """StageError where it is no name, or one of a profile that somebody wrote by hand."""
    name = given or re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise StageError(f"--name {name!r}: no name of a profile; take letters, digits, - and _")
    path = PROFILES / f"{name}.yaml"
    if path.exists() and not path.read_text(encoding="utf-8").startswith(MARK):
        raise StageError(f"{path}: there is a profile of that name, which gr2 init has not written; say --name OTHER")
    return name


def overlay_text(what: str, made: dict[str, tuple[str, str]], ingest: dict[str, Any], why_ingest: str, has_titles: bool) -> str:
    """made: key of ingest.table -> (value, why). ingest: other keys of the section."""
    head = {key: value for key, value in ingest.items() if key in ("source", "folder", "category")}
    rest = {key: value for key, value in ingest.items() if key not in head}
    lines = [f"{MARK}: {_line(what)}. Behind each line: what it was taken for, and why.", "ingest:"]
    lines += [f"  {key}: {_value(value)}" for key, value in head.items()]
    if made:
        lines += ["  table:", *(f"    {key}: {_value(value)} # {_line(why)}" for key, (value, why) in made.items())]
    lines += [f"  # {_line(why_ingest)}", *(f"  {key}: {_value(value)}" for key, value in rest.items())]
    if not has_titles:
        lines += ["# Without titles, vectors are learnt from what is taken one after the other."]
        lines += [f"{section}: {_value(values)}" for section, values in NO_TITLES.items()]
    return "\n".join(lines) + "\n"


def write_profile(name: str, text: str) -> Path:
    """Whole or not at all."""
    path = PROFILES / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def _value(value: object) -> str:
    """As JSON, which YAML 1.1 and 1.2 read alike."""
    return json.dumps(value, ensure_ascii=False)


def _line(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
