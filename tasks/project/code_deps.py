"""Which of the project's files a stage really imports, found by reading the source: DVC looks only at files listed in its deps."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.project.graph import Graph, Stage, holds
from tasks.system.errors import ProjectError
from tasks.system.yaml_files import dump, parse, read_text, write_text

PACKAGE = "stages"
STAGE_MODULE = re.compile(rf"-m\s+({PACKAGE}(?:\.\w+)+)")
MODULE_NAME = re.compile(rf"{PACKAGE}(?:\.\w+)+")
NOT_RESOURCES = {".py", ".pyc", ".md"}


@dataclass(frozen=True)
class Gap:
    """Code deps that dvc.yaml lacks for a stage, and those it lists in vain."""

    missing: tuple[str, ...]
    stale: tuple[str, ...]


def project_imports(root: Path, module: str) -> set[str]:
    """Files under stages/ (relative to `root`) that running `module` may import, at the top or inside a function.

    Package __init__ files count. A string that spells a module of the project counts too: `-m stages.x` for a subprocess, importlib.
    """
    start = next((name for name in (f"{module}.__main__", module) if _file_of(root, name)), None)
    if start is None:
        raise ProjectError(f"{module}: no such module under {root / PACKAGE}")
    seen: set[Path] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        for file in (_file_of(root, parent) for parent in _with_parents(name)):
            if file is not None and file not in seen:
                seen.add(file)
                todo += _imported_names(file, _module_of(root, file))
    return {file.relative_to(root).as_posix() for file in seen}


def gaps(root: Path, graph: Graph) -> dict[str, Gap]:
    """The stages whose code deps in dvc.yaml are not what they import, by name."""
    found = {}
    for stage in graph.stages.values():
        needed = needed_code(root, stage)
        if needed is None:
            continue
        listed = [dep for dep in stage.deps if holds(PACKAGE, dep)]
        missing = tuple(sorted(file for file in needed if not any(holds(dep, file) for dep in listed)))
        stale = tuple(sorted(dep for dep in listed if not any(holds(dep, file) for file in needed)))
        if missing or stale:
            found[stage.name] = Gap(missing, stale)
    return found


def needed_code(root: Path, stage: Stage) -> set[str] | None:
    """What the stage imports plus the other files in its package (templates, word lists); None if its cmd runs no module of the project."""
    module = STAGE_MODULE.search(stage.cmd)
    if module is None:
        return None
    folder = root / Path(*module[1].removesuffix(".__main__").split("."))
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in NOT_RESOURCES and not path.name.startswith(".")]
    return project_imports(root, module[1]) | {path.relative_to(root).as_posix() for path in files}


def write_deps(root: Path, graph: Graph) -> dict[str, Gap]:
    """Puts right the code deps in dvc.yaml, in sorted places; data deps, order and comments stay. Returns the gaps it closed."""
    found = gaps(root, graph)
    if found:
        text = read_text(root / "dvc.yaml", "")
        document = parse(text, "dvc.yaml", round_trip=True)
        for name, gap in found.items():
            entry = document["stages"][name]
            deps = entry.setdefault("deps", [])
            for path in gap.stale:
                if path not in deps:
                    raise ProjectError(f"dvc.yaml: stages.{name}.deps: {path} comes of a ${{...}} in it; change the value in params.yaml")
                deps.remove(path)
            for path in gap.missing:
                code = [(place, dep) for place, dep in enumerate(deps) if isinstance(dep, str) and holds(PACKAGE, dep)]
                after = [place for place, dep in code if dep < path]
                deps.insert(after[-1] + 1 if after else code[0][0] if code else 0, path)
        write_text(root / "dvc.yaml", dump(document, indented_lists=bool(re.search(r"^( *)\w+:\n\1 +- ", text, re.MULTILINE))))
    return found


def _imported_names(file: Path, module: str) -> set[str]:
    """Dotted names that `file` may import; some may be attributes of a module rather than modules."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ProjectError(f"{file}: not readable as Python: {error}") from None
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module or "") if part)
            names.update([source, *(f"{source}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE_NAME.fullmatch(node.value):
            names.update([node.value, f"{node.value}.__main__"])
    return {name for name in names if name == PACKAGE or name.startswith(f"{PACKAGE}.")}


def _with_parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _file_of(root: Path, module: str) -> Path | None:
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_name(base.name + ".py"), base / "__init__.py") if path.is_file()), None)


def _module_of(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
