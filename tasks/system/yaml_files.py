"""YAML as DVC reads it (YAML 1.2, through ruamel), with errors that name file and line."""

import io
import os
from pathlib import Path
from typing import Any

from tasks.system.errors import ProjectError


def read_text(path: Path, missing: str) -> str:
    """The text of `path`; ProjectError with `missing` as the remedy when it does not exist."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ProjectError(f"{path.name}: no such file in {path.parent.resolve()}; {missing}") from None
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path}: not UTF-8 text: {error}") from None


def parse(text: str, source: str, round_trip: bool = False) -> Any:
    """The document in `text`. With `round_trip` it keeps comments and quotes for `dump`. Plain dicts and lists otherwise."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="rt" if round_trip else "safe")
    yaml.preserve_quotes = True
    try:
        return yaml.load(text)
    except YAMLError as error:
        raise ProjectError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None


def dump(document: Any, indented_lists: bool = True) -> str:
    """A round-trip document as text; lists stand two spaces inside their key, or at its column (DVC's own style)."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    if indented_lists:
        yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def write_text(path: Path, text: str) -> None:
    """Writes a temporary file in the same folder and moves it into place: no reader, no crash and no loss of power leaves half a file."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
