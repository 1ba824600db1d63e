"""The text view of a lineage: code by package, a file alone with its hash."""

import io

from rich.console import Console

from flows.render.lineage import lineage_view
from tasks.lineage.query import ChainLink, LineageChain

CODE = {f"stages/shared/core/file{number}.py": f"{number:032x}" for number in range(40)}
CODE |= {"stages/__init__.py": "a" * 32, "stages/rl/rl.py": "b" * 32, "stages/rl/sub/one.py": "c" * 32, "stages/rl/dapo.py": "d" * 32}


def test_code_files_are_folded_by_package() -> None:
    link = ChainLink("rl", "python -m stages.rl", CODE, {}, {}, {}, {}, {}, ())
    chain = LineageChain("data/rl/model", "data/rl/model", "rl", "e" * 32, 1, True, "", (link,), None)
    printed = io.StringIO()
    Console(width=200, file=printed).print(lineage_view(chain))
    lines = [line.strip("│├└─ ").strip() for line in printed.getvalue().splitlines()]
    start = lines.index("code: 44 files")
    assert lines[start + 1 :] == [
        f"stages/__init__.py  md5 {'a' * 32}",
        "stages/rl: 2 files",
        f"stages/rl/sub/one.py  md5 {'c' * 32}",
        "stages/shared/core: 40 files",
    ]
