"""Every forgery of bench/forgeries.py is found where the table says, or not, for the reason that it gives."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "bench"))

from forgeries import as_expected, tried
from forgery_files import FILES
from forgery_kinds import Forgery
from forgery_project import make
from forgery_record import RECORD

from tasks.lineage.verify import Verification, verify


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Verification]:
    folder = make(tmp_path_factory.mktemp("forgeries"))
    clean = verify(folder / "toy")
    assert not clean.problems
    return folder, clean


def test_there_are_enough_and_each_that_is_not_named_has_its_reason() -> None:
    forgeries = [*FILES, *RECORD]
    assert len(forgeries) >= 60 and len({forgery.what for forgery in forgeries}) == len(forgeries)
    assert all(forgery.reason for forgery in forgeries if forgery.found in ("", "note"))


@pytest.mark.parametrize("forgery", [*FILES, *RECORD], ids=lambda forgery: forgery.what)
def test_found_where_the_table_says(base: tuple[Path, Verification], tmp_path: Path, forgery: Forgery) -> None:
    folder, clean = base
    seen = tried(folder, tmp_path / "copy", forgery)
    assert as_expected(forgery, seen, clean), (seen.problems, seen.notes)
