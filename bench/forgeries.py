"""Tries every forgery of bench/forgery_kinds.py on a copy of a small project, and asks `gr2 lineage --verify` what it sees.

python bench/forgeries.py > bench/results/forgeries.md
"""

import shutil
import sys
import tempfile
from pathlib import Path

from forgery_files import FILES
from forgery_kinds import Forgery
from forgery_project import make
from forgery_record import RECORD

from tasks.lineage.verify import Verification, verify


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="forgeries-") as work:
        base = make(Path(work) / "base")
        clean = verify(base / "toy")
        assert not clean.problems, clean.problems
        rows = []
        for forgery in (*FILES, *RECORD):
            rows.append((forgery, tried(base, Path(work) / "copy", forgery)))
            print(f"{'as expected' if as_expected(*rows[-1], clean) else 'OTHERWISE'}: {forgery.what}", file=sys.stderr, flush=True)
    print(table(clean, rows))
    return 0 if all(as_expected(forgery, seen, clean) for forgery, seen in rows) else 1


def tried(base: Path, copy: Path, forgery: Forgery) -> Verification:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(base, copy, symlinks=True)
    forgery.do(copy / "toy")
    return verify(copy / "toy")


def as_expected(forgery: Forgery, seen: Verification, clean: Verification) -> bool:
    kinds = {problem.kind for problem in seen.problems}
    if forgery.found in ("", "note"):
        return not kinds and bool(set(seen.notes) - set(clean.notes)) == (forgery.found == "note")
    return forgery.found in kinds


def table(clean: Verification, rows: list[tuple[Forgery, Verification]]) -> str:
    """Markdown."""
    named = [seen for _, seen in rows if seen.problems]
    wrong = [forgery.what for forgery, seen in rows if not as_expected(forgery, seen, clean)]
    text = [
        "# Forgeries\n",
        f"{len(rows)} forgeries, {len(named)} of them named by `gr2 lineage --verify` as a fault. The others stand here with the reason; "
        "[lineage.md](../../docs/lineage.md#what-it-cannot-see) says what that means.",
        "Each is tried on a copy of a project of four stages: two runs committed, the second promoted, a third on record alone; "
        "the record's ref is on a remote.\n",
        "Command: `python bench/forgeries.py > bench/results/forgeries.md`. Exit code 1 when one is not found where it was expected.\n",
        "| forgery | who could do it | found by | what it says, or why it is no fault |",
        "|---|---|---|---|",
    ]
    for forgery, seen in rows:
        problem = next((own for own in seen.problems if own.kind == forgery.found), next(iter(seen.problems), None))
        found = problem.kind if problem else "a note" if forgery.found == "note" else "-"
        said = f"{problem.file}: {problem.what}" if problem else forgery.reason
        text.append(f"| {forgery.what} | {forgery.who} | {found} | {said.replace('|', '/')} |")
    text.append("\nfound by: `data` the files of the workspace; `cache` DVC's objects; `lock` dvc.lock against record and git;")
    text.append("`record` the record and what vouches for it.")
    return "\n".join([*text, *(f"\nNot as expected: {what}" for what in wrong)])


if __name__ == "__main__":
    sys.exit(main())
