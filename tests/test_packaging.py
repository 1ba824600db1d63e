"""pyproject.toml declares what the code imports, and requirements.lock pins versions that pyproject.toml allows."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions, packages_distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("stages", "tasks", "flows", "tests", "bench", "infra", "docs")
INSTALLERS = {"pip", "setuptools", "uv", "wheel"}  # not in the lock: they install it
# bench/tokenizer_packages.py measures against these; bench/tokenizer_packages.requirements.txt has them.
PEERS = {"semantic_id", "vector_quantize_pytorch"}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(*extras: str) -> dict[str, Requirement]:
    """Canonical name -> requirement, of the package itself and of `extras`."""
    table = project()["project"]
    lines = [*table["dependencies"], *(line for extra in extras for line in table["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def locked() -> dict[str, Version]:
    lines = [line for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    pins = [line.split("==") for line in lines]
    return {canonicalize_name(name): Version(version) for name, version in pins}


def imported(*rooms: str) -> dict[str, str]:
    """Top-level module from outside the project -> a file that imports it."""
    scripts = {path.stem for room in ("bench", "infra", "tests") for path in (ROOT / room).rglob("*.py")}  # that import each other
    files = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    modules = {module: str(path.relative_to(ROOT)) for path in files for module in _modules(path)}
    ours = {*ROOMS, *(scripts - set(packages_distributions()))}
    return {module: path for module, path in modules.items() if module not in sys.stdlib_module_names and module not in ours}


def _modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def undeclared(modules: dict[str, str], declared: dict[str, Requirement]) -> dict[str, str]:
    """Those of `modules` that no declared package brings."""
    packages = packages_distributions()
    return {
        module: path
        for module, path in modules.items()
        if not {canonicalize_name(name) for name in packages.get(module, ())} & set(declared)
    }


def test_what_the_code_imports_is_declared() -> None:
    modules = imported("stages", "tasks", "flows")
    assert len(modules) > 20, "the scan sees nothing"
    assert undeclared(modules, requirements("cpu")) == {}, "add it to dependencies in pyproject.toml"
    assert set(undeclared(modules, requirements())) == {"vllm"}, "vLLM alone is optional"


def test_what_tests_and_measurements_import_is_declared() -> None:
    modules = imported("tests", "bench", "infra", "docs")
    missing = undeclared(modules, requirements("cpu", "serve", "dev"))
    assert set(missing) <= PEERS, f"add it to the extra dev in pyproject.toml: {missing}"


def test_the_lock_satisfies_the_ranges() -> None:
    versions = locked()
    wanted = requirements("cpu", "serve", "dev")
    assert sorted(name for name in wanted if name not in versions) == [], "declared, but not in requirements.lock"
    assert {name: str(wanted[name]) for name in wanted if versions[name] not in wanted[name].specifier} == {}


def test_every_range_has_two_ends() -> None:
    ranges = requirements("cpu", "gpu", "serve", "dev")
    open_ended = {name for name, wanted in ranges.items() if {part.operator for part in wanted.specifier} != {">=", "<"}}
    assert open_ended <= {"packaging"}  # numbered by year


def test_the_override_for_uv_pins_what_the_lock_pins() -> None:
    versions = locked()
    for line in project()["tool"]["uv"]["override-dependencies"]:
        override = Requirement(line)
        assert str(override.specifier) == f"=={versions[canonicalize_name(override.name)]}"


def test_what_packages_require_is_installed_but_for_the_named_exceptions() -> None:
    """`pip check`, without what [tool.uv] passes over."""
    uv = project()["tool"]["uv"]
    passed_over = {canonicalize_name(name) for name in uv["exclude-dependencies"]}
    passed_over |= {canonicalize_name(Requirement(line).name) for line in uv["override-dependencies"]} | INSTALLERS
    pinned = locked()
    installed = {canonicalize_name(package.metadata["Name"]): package for package in distributions()}
    unmet, needless = [], set(uv["exclude-dependencies"])
    for name in sorted(set(installed) & set(pinned)):
        for line in installed[name].requires or []:
            wanted = Requirement(line)
            if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
                continue
            key = canonicalize_name(wanted.name)
            needless.discard(key)
            if key not in passed_over and (key not in pinned or not wanted.specifier.contains(pinned[key], prereleases=True)):
                unmet.append(f"{name}: {line}")
    assert unmet == []
    assert needless == set(), "nothing requires these: take them out of exclude-dependencies"


def test_the_page_template_is_part_of_the_package() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"]["*"]
    data = [path for room in ("stages", "tasks", "flows") for path in (ROOT / room).rglob("*") if path.is_file()]
    suffixes = {path.suffix for path in data if "__pycache__" not in path.parts} - {".py", ".pyc", ".md"}
    assert suffixes == {re.sub(r"^\*", "", pattern) for pattern in patterns}
