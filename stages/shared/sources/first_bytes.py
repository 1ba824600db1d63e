"""What the first bytes of a file say of it, whatever it is called."""

from pathlib import Path

PARQUET = b"PAR1"


def is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(PARQUET)) == PARQUET
