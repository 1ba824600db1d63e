"""YAML as DVC reads it (YAML 1.2, through ruamel), with errors that name file and line."""

import io
import os
from pathlib import Path
from typing import Any

from tasks.system.errors import ProjectError

LARGEST = 100_000  # values of a document, with each alias counted as all that it stands for


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
        # A few lines of aliases can name billions of values: counted before anything is built, and every walk over them takes for ever.
        if "&" in text and "*" in text and _expanded(YAML(typ="safe", pure=True).compose(text), {}) > LARGEST:
            raise ProjectError(f"{source}: its aliases (*name) stand for more than {LARGEST:,} values; write out what is meant")
        return yaml.load(text)
    except YAMLError as error:
        raise ProjectError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ProjectError(f"{source}: it is nested too deeply, or an alias (*name) stands for what holds it") from None


def _expanded(node: Any, sizes: dict[int, int]) -> int:
    """How many values a node of ruamel's stands for. `sizes`: of the nodes counted already, by identity, as a node has one size
    however often it is named."""
    if node is None or node.id == "scalar":
        return 1
    if id(node) not in sizes:
        children = [child for pair in node.value for child in pair] if node.id == "mapping" else node.value
        sizes[id(node)] = 1 + sum(_expanded(child, sizes) for child in children)
    return sizes[id(node)]


def dump(document: Any, indented_lists: bool = True) -> str:
    """A round-trip document as text; lists stand two spaces inside their key, or at its column (DVC's own style)."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    # ruamel folds long texts at 80 columns by default, and a changed line break would show as an edit in git.
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
