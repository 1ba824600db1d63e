"""YAML from a file, refused before anything is built when its aliases stand for very much: a few lines can name billions of values."""

from typing import Any

import yaml

from stages.shared.core.errors import StageError

LARGEST = 100_000  # values, with each alias counted as all that it stands for


def load_yaml(text: str, source: str) -> Any:
    """StageError, naming `source`, for what is no YAML, is nested without end, or is larger than LARGEST."""
    try:
        if "&" in text and "*" in text and _expanded(yaml.compose(text, Loader=yaml.SafeLoader), {}) > LARGEST:
            raise StageError(f"{source}: its aliases (*name) stand for more than {LARGEST:,} values; write out what is meant")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StageError(f"{source}: not valid UTF-8 YAML: {error}") from None
    except RecursionError:
        raise StageError(f"{source}: it is nested too deeply, or an alias (*name) stands for what holds it") from None


def _expanded(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """How many values `node` stands for. `sizes`: of the nodes counted already, by identity, as a node has one size however often it
    is named."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in sizes:
        children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value
        sizes[id(node)] = 1 + sum(_expanded(child, sizes) for child in children)
    return sizes[id(node)]
