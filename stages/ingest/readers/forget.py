"""Users who asked to be forgotten: `ingest.forget` names them by digest, and their rows are dropped before anything counts them."""

import hashlib
from collections import Counter
from collections.abc import Iterable

import polars as pl

# In place of the text of a row that could not be parsed, while anyone is forgotten: it may be theirs.
HIDDEN = "(not kept: whose row it is cannot be told, and ingest.forget is not empty)"


def digest(source_id: str, salt: str) -> str:
    """What stands for a user in `ingest.forget`: sha256 of the salt and the id of the raw file, in hexadecimal."""
    # Stripped, as the readers strip ids: a digest with a space in it would match nobody.
    return hashlib.sha256((salt + source_id.strip()).encode(errors="surrogateescape")).hexdigest()


class Forgotten:
    """Drops the rows of the users with these digests, and counts what it dropped by the name of the file."""

    def __init__(self, digests: Iterable[str] = (), salt: str = ""):
        self.digests = frozenset(digests)
        self.salt = salt
        self.rows: Counter[str] = Counter()
        self.matched: set[str] = set()

    def without(self, file: str, parsed: pl.DataFrame) -> pl.DataFrame:
        """`parsed` (validate.py, numbers.py) without their rows, whether these could be used or not."""
        if not self.digests:
            return parsed
        user = parsed["user"].cast(pl.String).str.strip_chars()
        by_digest = {digest(source_id, self.salt): source_id for source_id in user.drop_nulls().unique()}
        matched_digests = self.digests & by_digest.keys()
        self.matched |= matched_digests
        is_theirs = user.is_in([by_digest[matched_digest] for matched_digest in matched_digests]).fill_null(False)
        self.rows[file] += int(is_theirs.sum())
        others = parsed.filter(~is_theirs)
        if "reason" not in others.columns:
            return others
        # A row that could not be parsed has no user to compare with.
        unread = pl.col("reason").is_not_null()
        return others.with_columns(text=pl.when(unread).then(pl.lit(HIDDEN)).otherwise(pl.col("text")))

    def counts(self) -> dict[str, int]:
        """For metrics.json; nothing where nobody is to be forgotten. A digest may match no one: the raw file was cleaned, too."""
        if not self.digests:
            return {}
        return {
            "forgotten_users": len(self.matched),
            "forgotten_rows": self.rows.total(),
            "forgotten_digests_without_user": len(self.digests - self.matched),
        }
