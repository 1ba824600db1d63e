"""params.yaml as a whole, as far as the graph knows it: its sections, and what stages take of a machine.

What the keys of a section may hold, the project's own tool knows (stages/tools/check_params.py): `tool_command` runs it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from tasks.project.graph import Graph
from tasks.project.overrides import PARAMS
from tasks.project.templates import DEFAULT
from tasks.system.errors import ProjectError, nearest
from tasks.system.yaml_files import parse, read_text

TOOL = Path("stages") / "tools" / "check_params.py"
RESOURCES = "resources"


def check_sections(root: Path, graph: Graph, params: str | None = None) -> None:
    """ProjectError, with a line a fault, for a section that no stage reads or that is no mapping, and for resources of no stage.

    `params`: the text that params.yaml is about to have; None: the one it has.
    """
    if params is None and not (root / PARAMS).exists():
        return
    document = parse(read_text(root / PARAMS, "") if params is None else params, PARAMS)
    if not isinstance(document, dict):
        raise ProjectError(f"{PARAMS}: a mapping of sections is expected (got {_kind(document)}); gr2 run --profile default writes it anew")
    valid_sections = _valid_sections(root, graph)
    # All faults at once: a params.yaml of an earlier release has several.
    faults = [
        f"{PARAMS}: {name}: no stage has such a section{nearest(str(name), valid_sections)} "
        f"(sections: {', '.join(sorted(valid_sections))}; CHANGELOG.md lists what was renamed)"
        for name in document
        if name not in valid_sections
    ]
    faults += [
        _not_a_mapping(str(name), value) for name, value in document.items() if name in valid_sections and not isinstance(value, dict)
    ]
    resources = document.get(RESOURCES, {})
    for name, value in resources.items() if isinstance(resources, dict) else ():
        if name not in graph.declared:
            stages = sorted(graph.declared)
            faults.append(f"{PARAMS}: {RESOURCES}.{name}: there is no such stage{nearest(str(name), stages)} (stages: {', '.join(stages)})")
        elif not isinstance(value, dict):
            faults.append(_not_a_mapping(f"{RESOURCES}.{name}", value))
    if faults:
        raise ProjectError("\n".join(faults))


def tool_command(root: Path, files: Sequence[Path]) -> list[str] | None:
    """What checks every key of `files`, each a params.yaml; exit code 1 with a line a fault. None: the project has no such tool."""
    # A process, not an import: the parameter models are the stages', and tasks knows stages only by name.
    return [sys.executable, "-m", "stages.tools.check_params", *map(str, files)] if (root / TOOL).is_file() else None


def _valid_sections(root: Path, graph: Graph) -> set[str]:
    """The sections that stages read, or dvc.yaml names; those of the profile default, too, where there is one."""
    keys = [key for stage in graph.stages.values() for key in (*stage.params.get(PARAMS, ()), *stage.dep_keys.values())]
    # The profile is complete: a section of it is no mistake where this dvc.yaml has no stage for it.
    default = parse(read_text(root / DEFAULT, ""), str(DEFAULT)) if (root / DEFAULT).exists() else {}
    return {RESOURCES, *graph.stages, *(key.split(".")[0] for key in keys), *(default if isinstance(default, dict) else ())}


def _not_a_mapping(name: str, value: object) -> str:
    return f"{PARAMS}: {name}: a mapping of keys is expected (got {_kind(value)}); copy it from {DEFAULT}"


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{value!r}, a {type(value).__name__}"
