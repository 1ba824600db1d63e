"""Figures of the code: size of files and packages, comments, `Any`, class names defined twice, imports inside functions.

    python bench/code_figures.py [--root FOLDER] [--offenders 15]

The first table has a line for each of stages, tasks and flows. What follows it names the files to mend first.
"""

import argparse
import ast
import io
import statistics
import tokenize
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOMS = ("stages", "tasks", "flows")
LARGEST_PACKAGE, LONGEST_FILE = 15, 400
COMMENTS_PER_100, ANY_PER_100 = 3.0, 1.5


@dataclass(frozen=True)
class FileFigures:
    path: str
    lines: int
    comments: int
    any_names: int
    classes: tuple[str, ...]
    inner_imports: tuple[int, ...]  # line numbers


def read_file(path: Path, root: Path) -> FileFigures:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = sum(token.type == tokenize.COMMENT and not is_directive(token.string) for token in tokens)
    any_names = sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))
    classes = tuple(node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inner = {node.lineno for f in functions for node in ast.walk(f) if isinstance(node, ast.Import | ast.ImportFrom)}
    return FileFigures(str(path.relative_to(root)), len(text.splitlines()), comments, any_names, classes, tuple(sorted(inner)))


def is_directive(comment: str) -> bool:
    """Whether a comment speaks to a tool and not to a reader."""
    return comment.lstrip("# ").startswith(("type:", "noqa", "pragma", "ruff:", "mypy:"))


def read_room(root: Path, room: str) -> list[FileFigures]:
    return [read_file(path, root) for path in sorted((root / room).rglob("*.py"))]


def package_sizes(files: list[FileFigures]) -> Counter[str]:
    """.py files per folder, subpackages counted separately."""
    return Counter(str(Path(file.path).parent) for file in files)


def duplicate_classes(files: list[FileFigures]) -> dict[str, list[str]]:
    """Class name -> files, where more than one file defines it."""
    where = defaultdict(list)
    for file in files:
        for name in file.classes:
            where[name].append(file.path)
    return {name: paths for name, paths in sorted(where.items()) if len(paths) > 1}


def per_hundred(count: int, lines: int) -> float:
    return 100 * count / max(lines, 1)


def room_row(room: str, files: list[FileFigures]) -> str:
    written = [file.lines for file in files if file.lines > 1]  # without __init__.py of a line
    lines = sum(file.lines for file in files)
    comments, any_names = sum(file.comments for file in files), sum(file.any_names for file in files)
    longest = max(files, key=lambda file: file.lines)
    package, size = package_sizes(files).most_common(1)[0]
    return (
        f"| {room} | {len(files)} | {lines} | {statistics.median(written):.0f} | {longest.lines} `{longest.path}` "
        f"| {per_hundred(comments, lines):.2f} | {per_hundred(any_names, lines):.2f} "
        f"| {len(package_sizes(files))} | {size} `{package}` | {len(duplicate_classes(files))} |"
    )


def table(rooms: dict[str, list[FileFigures]]) -> str:
    rows = [
        "| room | files | lines | median file | longest file | comments / 100 lines | Any / 100 lines "
        "| packages | largest package | class names defined twice |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows += [room_row(room, files) for room, files in rooms.items()]
    return "\n".join([*rows, room_row("all", [file for files in rooms.values() for file in files])])


def offenders(files: list[FileFigures], count: int) -> str:
    few_comments = sorted(
        (f for f in files if f.lines > 30 and per_hundred(f.comments, f.lines) < COMMENTS_PER_100),
        key=lambda f: f.comments - COMMENTS_PER_100 * f.lines / 100,
    )
    many_any = sorted((f for f in files if f.any_names), key=lambda f: f.any_names, reverse=True)
    many_inner = sorted((f for f in files if f.inner_imports), key=lambda f: len(f.inner_imports), reverse=True)
    sections = {
        f"files above {LONGEST_FILE} lines": [f"{f.lines} {f.path}" for f in files if f.lines > LONGEST_FILE],
        f"packages above {LARGEST_PACKAGE} files": [f"{n} {p}" for p, n in package_sizes(files).items() if n > LARGEST_PACKAGE],
        "files outside a package": [
            f.path for f in files if len(Path(f.path).parts) == 2 and Path(f.path).name not in ("__init__.py", "__main__.py", "cli.py")
        ],
        "class names defined twice": [f"{name}: {', '.join(paths)}" for name, paths in duplicate_classes(files).items()],
        f"fewest comments (comments in lines, below {COMMENTS_PER_100:g} in 100)": [
            f"{f.comments} in {f.lines} {f.path}" for f in few_comments[:count]
        ],
        f"most Any (goal below {ANY_PER_100:g} in 100)": [f"{f.any_names} in {f.lines} {f.path}" for f in many_any[:count]],
        "imports inside functions (lines)": [f"{f.path}: {', '.join(map(str, f.inner_imports))}" for f in many_inner[:count]],
    }
    return "\n\n".join(f"{title}: {len(lines)}\n" + "\n".join(f"  {x}" for x in lines) for title, lines in sections.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("."), help="the project's folder")
    parser.add_argument("--offenders", type=int, default=15, help="how many files to name under each heading")
    args = parser.parse_args()
    rooms = {room: read_room(args.root, room) for room in ROOMS}
    print(table(rooms), "\n")
    print(offenders([file for files in rooms.values() for file in files], args.offenders))


if __name__ == "__main__":
    main()
