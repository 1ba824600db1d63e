"""What the pages name exists: links, files, modules, data, commands and their options; and every page is reached from the index."""

import ast
import contextlib
import io
import re
from functools import cache
from pathlib import Path

import pytest

from flows import cli
from tasks.project.graph import read_graph

ROOT = Path(__file__).resolve().parents[1]
INDEX = ROOT / "docs/index.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = ("fault-campaign.md", "licences.md")  # of programs, which name what they met
# Pages that say how to add something name files that do not exist yet.
EXAMPLES = ("calibrate", "scripts/", "releases/")

LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
PATH = re.compile(r"(?<![\w./~-])(?:stages|tasks|flows|infra|tests|bench|docs)/[\w./-]*\w(?:/(?![\w<]))?")
MODULE = re.compile(r"\b(?:python -m )?((?:stages|tasks|flows)(?:\.[a-z_]\w*)+)\b")
DATA = re.compile(r"(?<![\w./-])data/[a-z_]+/[\w.]+")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE_NAME = re.compile(r"(?<![\w./*{}-])\w+\.py\b")
COMMAND = re.compile(r"(?:^|[`/]|; |&& )gr2 ([a-z]+)((?: [^`\n#;]*)?)", re.MULTILINE)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(page: Path) -> str:
    """The parts of a page that are set as code, in which names are meant to the letter."""
    return "\n".join(part.strip("`") for part in CODE.findall(page.read_text(encoding="utf-8")))


def is_example(name: str) -> bool:
    return any(word in name for word in EXAMPLES) or bool(re.search(r"\b(NAME|FOLDER|STAGE)\b|\.\.\.", name))


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue  # http and mailto: no network in tests
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name} links to {link}, which does not exist"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}: {target.name} has no such heading"


def test_every_page_is_linked_from_the_index() -> None:
    linked = {(INDEX.parent / link.partition("#")[0]).resolve() for link in LINK.findall(INDEX.read_text(encoding="utf-8"))}
    missing = [page.name for page in sorted((ROOT / "docs").glob("*.md")) if page != INDEX and page not in linked]
    assert not missing, f"docs/index.md does not link to {', '.join(missing)}"


@pages
def test_files_and_modules_exist(page: Path) -> None:
    if page.name in GENERATED:
        return
    for path in PATH.findall(code(page)):
        if not is_example(path):
            assert (ROOT / path).exists(), f"{page.name} names {path}, which does not exist"
    names = {file.name for file in ROOT.rglob("*.py") if ".venv" not in file.parts}
    for name in FILE_NAME.findall(code(page)):
        assert name in names or is_example(name), f"{page.name} names {name}, and no file has that name"
    for module in MODULE.findall(code(page)):
        assert is_example(module) or exists(module), f"{page.name} names {module}, which is no module and nothing in one"


@pages
def test_python_examples_import_what_exists(page: Path) -> None:
    for example in PYTHON.findall(page.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in ("stages", "tasks", "flows"):
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    assert is_example(name) or exists(name), f"{page.name} imports {name}, which does not exist"


@cache
def exists(name: str) -> bool:
    """Whether `name` is a module, or begins with one that mentions the rest of it."""
    path = ROOT / name.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    parent, last = path.parent.with_suffix(".py"), path.name
    return parent.exists() and re.search(rf"\b{last}\b", parent.read_text(encoding="utf-8")) is not None


@pages
def test_data_files_are_outputs(page: Path) -> None:
    if page.name in GENERATED:
        return
    sharded = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("shards: []", "shards: [0]")
    outputs = [Path(out) for stage in read_graph(ROOT, sharded).stages.values() for out in stage.outs]
    for name in DATA.findall(code(page)):
        path = Path(name)
        is_known = any(path == out or out in path.parents or path in out.parents for out in outputs)
        assert is_known or is_example(name), f"{page.name} names {name}, which no stage writes"


@cache
def command_help(command: str) -> str | None:
    """What `gr2 COMMAND --help` prints; None when there is no such command."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            cli.main([command, "--help"])
        except SystemExit as ended:
            return text.getvalue() if ended.code == 0 else None
    return text.getvalue()


@pages
def test_commands_and_their_options_exist(page: Path) -> None:
    for command, rest in COMMAND.findall(code(page)):
        known = command_help(command)
        assert known is not None, f"{page.name}: there is no command gr2 {command}"
        for option in re.findall(r"(?<=[\s\[])--[a-z-]+", rest):
            assert option in known, f"{page.name}: gr2 {command} has no option {option}"
