"""Differences between two nested mappings, such as two versions of params.yaml, by dotted key."""

from collections.abc import Iterator

MISSING = object()  # stands for a side that lacks the key; None is a value


def value_at(document: object, key: str) -> object:
    """The value at the dotted `key`, or MISSING."""
    for part in key.split("."):
        if not isinstance(document, dict) or part not in document:
            return MISSING
        document = document[part]
    return document


def differences(old: object, new: object, key: str = "") -> Iterator[tuple[str, object, object]]:
    """(dotted key, old, new) of every leaf that differs; MISSING stands for a side without the key."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from differences(old.get(name, MISSING), new.get(name, MISSING), f"{key}.{name}" if key else str(name))
    elif old is MISSING or new is MISSING or old != new:
        yield key, old, new


def format_value(value: object) -> str:
    return "(none)" if value is MISSING else "null" if value is None else str(value)
