"""What is installed is pinned to the version, and each licence is known and of a kind that may be here."""

import importlib.util
import re
import subprocess
import sys
from email.message import Message
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]


def lines() -> list[str]:
    return [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "infra" / "licences.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_line_pins_one_version() -> None:
    assert [line for line in lines() if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!+_-]*", line)] == []


def test_the_page_lists_the_lock() -> None:
    page = (ROOT / "docs" / "licences.md").read_text()
    listed = [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in page.splitlines() if re.match(r"\| [A-Za-z0-9]", line)][1:]
    assert sorted(f"{name}=={version}" for name, version, _ in listed) == sorted(lines()), "run: python infra/licences.py"
    assert [row for row in listed if not row[2] or re.search(r"AGPL|Affero|SSPL|unknown", row[2], re.IGNORECASE)] == []
    copyleft = page.split("## All of them")[0]
    assert [name for name, _, licence in listed if "GPL" in licence and f"- {name} " not in copyleft] == []


def test_the_page_is_what_the_metadata_say() -> None:
    result = subprocess.run([sys.executable, "infra/licences.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def package(**fields: str | list[str]) -> SimpleNamespace:
    meta = Message()
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            meta[name.replace("_", "-")] = value
    return SimpleNamespace(metadata=meta)


def test_where_a_licence_is_read_and_what_is_refused(script: ModuleType) -> None:
    read = script.licence
    assert read(package(License_Expression="MIT", License="GPL")) == "MIT"
    classifiers = ["License :: OSI Approved", "License :: OSI Approved :: MIT License", "Topic :: X"]
    assert read(package(Classifier=classifiers, License="x")) == "MIT License"
    assert read(package(License="\nBSD\nCopyright someone")) == "BSD"
    assert read(package(License="UNKNOWN")) == read(package(Name="x")) == ""
    rows = [
        ("a", "1", "MIT", ""),
        ("b", "1", "GNU Affero General Public License v3", ""),
        ("c", "1", "", ""),
        ("d", "1", "AGPL-3.0", "why"),
    ]
    assert [fault.split("==")[0] for fault in script.faults(rows)] == ["b", "c"]


def test_a_lock_that_pins_nothing_is_named(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("# all\na==1.0\nb>=2\n")
    with pytest.raises(SystemExit, match=r"requirements\.lock, line 3: 'b>=2'"):
        script.pinned(tmp_path)
