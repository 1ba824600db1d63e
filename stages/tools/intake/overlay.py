"""The profile that `gr2 init` writes: infra/profiles/NAME.yaml, with the reason behind each line."""

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.shared.core.errors import StageError

Made = dict[str, tuple[Any, str]]  # key -> (value, why)
PROFILES = Path("infra") / "profiles"
MARK = "# Written by gr2 init"
ITEMS_A_CODE = 12  # of a catalogue: with fewer, the residuals of the later levels are all alike, and tokenize.usage_gate refuses the codes
CODES, FEWEST_CODES = 32, 4  # the default of tokenize.codebook_size, and what a tiny catalogue gets


def profile_name(folder: Path, given: str) -> str:
    """StageError where it is no name, or one of a profile that somebody wrote by hand."""
    name = given or re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise StageError(f"--name {name!r}: no name of a profile; take letters, digits, - and _")
    path = PROFILES / f"{name}.yaml"
    if path.exists() and not path.read_text(encoding="utf-8").startswith(MARK):
        raise StageError(f"{path}: there is a profile of that name, which gr2 init has not written; say --name OTHER")
    return name


def other_sections(has_titles: bool, has_times: bool, items: int) -> tuple[dict[str, Any], list[str]]:
    """What the other stages need on such data, by section, and why."""
    tokenize: dict[str, Any] = {}
    sections: dict[str, Any] = {}
    why = []
    if not has_titles:
        # The text of an item is then its id, which says nothing. Vectors of orders lie in a few clusters, where the autoencoder's codebooks
        # may stay below the gate.
        sections["embed"] = {"collaborative": {"mode": "concat", "weight": 0.9}}
        tokenize["method"] = "rqkmeans"
        why.append("without titles, vectors are learnt from what is taken one after the other (embed.collaborative), and k-means cuts them")
    if not has_times:
        sections["prompt"] = {"less_features": ["re"]}
        why.append("without times the recency of items is the same for all, and prompts leave it out (prompt.less_features)")
    if items < ITEMS_A_CODE * CODES:
        tokenize["codebook_size"] = max(FEWEST_CODES, 2 ** int(math.log2(max(items / ITEMS_A_CODE, 1))))
        why.append(f"{items:,} items fill no more than {tokenize['codebook_size']} codes a level (tokenize.codebook_size)")
    return sections | ({"tokenize": tokenize} if tokenize else {}), why


def overlay_text(
    what: str, made: Made, ingest: dict[str, Any], sections: dict[str, Any], why: Sequence[str], given: Made | None = None
) -> str:
    """made: key of ingest.table -> (value, why). ingest: other keys of that section. sections: the others. why: of both, a line each.

    given: as `made`, of retrieve.given, which belongs to the section retrieve.
    """
    head = {key: value for key, value in ingest.items() if key in ("source", "folder", "category")}
    rest = {key: value for key, value in ingest.items() if key not in head}
    lines = [f"{MARK}: {_line(what)}. Behind each line: what it was taken for, and why."]
    lines += [*(f"# {_line(reason)}" for reason in why), "ingest:", *(f"  {key}: {_value(value)}" for key, value in head.items())]
    if made:
        lines += ["  table:", *(f"    {key}: {_value(value)} # {_line(reason)}" for key, (value, reason) in made.items())]
    lines += [f"  {key}: {_value(value)}" for key, value in rest.items()]
    lines += [f"{section}: {_value(values)}" for section, values in sections.items() if section != "retrieve"]
    if given:
        lines += ["retrieve:", *(f"  {key}: {_value(value)}" for key, value in sections["retrieve"].items()), "  given:"]
        lines += [f"    {key}: {_value(value)} # {_line(reason)}" for key, (value, reason) in given.items()]
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
