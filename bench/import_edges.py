"""Counts who imports whom inside each room: between files, and between packages.

    python bench/import_edges.py [--root FOLDER] [--list tasks]

An edge is a pair (importer, imported) inside one room, counted once however many import statements it has. A package is a folder
directly below the room (`tasks/dvc`, `stages/rl`), below stages/shared a folder there; its subpackages belong to it. A file directly
in the room (flows/cli.py) counts as its own package.

The figures of an earlier commit: git worktree add --detach ../earlier COMMIT; python bench/import_edges.py --root ../earlier
"""

import argparse
import ast
from pathlib import Path

ROOMS = ("tasks", "flows", "stages/shared", "stages")
Edges = set[tuple[str, str]]


def modules(root: Path) -> dict[str, Path]:
    """Module name -> file, of the three rooms; a package has its __init__.py."""
    files = (path for room in ("tasks", "flows", "stages") for path in sorted((root / room).rglob("*.py")))
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The project's modules that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from a.b import c`: c is a module, or a name in the module a.b
            names |= {f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in known else node.module for a in node.names}
    return names & known.keys()


def file_edges(root: Path) -> Edges:
    known = modules(root)
    return {(name, other) for name, path in known.items() for other in imported(path, known) if other != name}


def inside(edges: Edges, room: str) -> Edges:
    prefix = f"{room.replace('/', '.')}."
    return {(one, two) for one, two in edges if one.startswith(prefix) and two.startswith(prefix)}


def package(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[: 3 if name.startswith("stages.shared.") else 2])


def package_edges(edges: Edges) -> Edges:
    return {(package(one), package(two)) for one, two in edges if package(one) != package(two)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("."), help="the project's folder")
    parser.add_argument("--list", metavar="ROOM", choices=ROOMS, help="also list the edges between the packages of a room")
    args = parser.parse_args()
    edges = file_edges(args.root)
    print("| room | edges between files | edges between packages |\n|---|---|---|")
    for room in ROOMS:
        print(f"| {room} | {len(inside(edges, room))} | {len(package_edges(inside(edges, room)))} |")
    if args.list:
        print("\n" + "\n".join(f"{one} -> {two}" for one, two in sorted(package_edges(inside(edges, args.list)))))


if __name__ == "__main__":
    main()
