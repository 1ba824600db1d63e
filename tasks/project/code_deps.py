"""Which of the project's files a stage really imports, found by reading the source: DVC looks only at files listed in its deps."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.project.graph import Graph, Stage, holds
from tasks.system.errors import ProjectError

PACKAGE = "stages"
STAGE_MODULE = re.compile(rf"-m\s+({PACKAGE}(?:\.\w+)+)")
MODULE_NAME = re.compile(rf"{PACKAGE}(?:\.\w+)+")
# Source is found by its imports, so that a module which no stage imports is no dep; .dvcignore keeps the other two out of every hash.
NOT_RESOURCES = {".py", ".pyc", ".md"}


@dataclass(frozen=True)
class Gap:
    """`missing`: files that a stage imports and no dep of it in dvc.yaml holds; `stale`: code deps of which it imports nothing."""

    missing: tuple[str, ...]
    stale: tuple[str, ...]

    @property
    def missing_packages(self) -> list[str]:
        """The packages, dotted, in which the missing files lie; a module that lies in none by its own name."""
        return sorted({dotted(str(Path(file).parent)) if "/" in file else file for file in self.missing})


def dotted(path: str) -> str:
    """A path under the root as Python names it: stages/shared/lm -> stages.shared.lm."""
    return path.rstrip("/").removesuffix(".py").replace("/", ".")


def project_imports(root: Path, module: str) -> set[str]:
    """Files of the project (relative to `root`) that running `module` may import, at the top or inside a function; of stages/, or not.

    Package __init__ files count, unless they hold nothing but a docstring.
    What importlib is told counts too, and a string that spells a module of stages/, as `-m stages.x` for a subprocess.
    """
    start = next((name for name in (f"{module}.__main__", module) if _file_of(root, name)), None)
    if start is None:
        raise ProjectError(f"{module}: no such module under {root / PACKAGE}")
    visited: set[Path] = set()
    pending = [start]
    while pending:
        name = pending.pop()
        # Python runs the __init__ of each package above; and `from a import b` may name a function, whose module is the parent.
        for file in (_file_of(root, parent) for parent in _with_parents(name)):
            if file is not None and file not in visited:
                visited.add(file)
                pending += _imported_names(root, file, _module_of(root, file))
    return {file.relative_to(root).as_posix() for file in visited if not _is_empty_package(file)}


def gaps(root: Path, graph: Graph) -> dict[str, Gap]:
    """The stages whose code deps in dvc.yaml are not what they import, by name."""
    gaps_by_stage = {}
    for stage in graph.stages.values():
        needed = needed_code(root, stage)
        if needed is None:
            continue
        listed = [dep for dep in stage.deps if holds(PACKAGE, dep)]
        missing = tuple(sorted(file for file in needed if not any(holds(dep, file) for dep in stage.deps)))
        stale = tuple(sorted(dep for dep in listed if not any(holds(dep, file) for file in needed)))
        if missing or stale:
            gaps_by_stage[stage.name] = Gap(missing, stale)
    return gaps_by_stage


def needed_code(root: Path, stage: Stage) -> set[str] | None:
    """What the stage imports plus the other files in its package (templates, word lists); None if its cmd runs no module of the project."""
    module = STAGE_MODULE.search(stage.cmd)
    if module is None:
        return None
    folder = root / Path(*module[1].removesuffix(".__main__").split("."))
    # A template or word list is opened by its path, which no import shows.
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in NOT_RESOURCES and not path.name.startswith(".")]
    return project_imports(root, module[1]) | {path.relative_to(root).as_posix() for path in files}


def code_files(root: Path, graph: Graph) -> list[Path]:
    """Where imports may stand: the modules of stages/, and those that dvc.yaml lists by themselves or in a folder that no stage makes."""
    made = {out for stage in graph.stages.values() for out in stage.outs}
    listed = {dep for stage in graph.stages.values() for dep in stage.deps if dep not in stage.dep_keys}
    folders = {PACKAGE, *(dep for dep in listed if not any(holds(out, dep) for out in made))}
    inside = {path for folder in folders for path in (root / folder).rglob("*.py")}
    return sorted(inside | {root / dep for dep in listed if dep.endswith(".py") and (root / dep).is_file()})


def _is_empty_package(file: Path) -> bool:
    """An __init__.py whose change can change nothing: it is empty, or holds a docstring alone."""
    if file.name != "__init__.py":
        return False
    body = ast.parse(file.read_text(encoding="utf-8"), str(file)).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def _imported_names(root: Path, file: Path, module: str) -> set[str]:
    """Dotted names of the project that `file` may import; some may be attributes of a module rather than modules."""
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
            # One dot is the package itself, each further one a package up.
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module or "") if part)
            names.update([source, *(f"{source}.{alias.name}" for alias in node.names)] if source else ())
        elif isinstance(node, ast.Call) and _last_name(node.func) in ("import_module", "__import__"):
            names.update(word.value for word in node.args[:1] if isinstance(word, ast.Constant) and isinstance(word.value, str))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE_NAME.fullmatch(node.value):
            names.update([node.value, f"{node.value}.__main__"])
    return {name for name in names if any(_file_of(root, parent) for parent in _with_parents(name) if parent)}  # the rest is installed


def _last_name(called: ast.expr) -> str:
    """Of importlib.import_module: import_module."""
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def _with_parents(module: str) -> list[str]:
    names = module.split(".")
    return [".".join(names[: end + 1]) for end in range(len(names))]


def _file_of(root: Path, module: str) -> Path | None:
    base = root.joinpath(*module.split("."))
    return next((path for path in (base.with_name(base.name + ".py"), base / "__init__.py") if path.is_file()), None)


def _module_of(root: Path, file: Path) -> str:
    names = file.relative_to(root).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)
