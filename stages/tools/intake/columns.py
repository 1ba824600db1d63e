"""What the values of a column look like: ids, times, numbers, texts, lists."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Literal, Self

import polars as pl

from stages.ingest.readers.times import ISO, parse_times
from stages.shared.sources.written_lists import written_list

# Numbers that make a time of these years in a unit are taken for that unit; the bounds of two units do not overlap.
_FROM, _TO = 631_152_000, 2_208_988_800  # 1990 to 2040, in seconds
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAYS = ("%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y")
_HOURS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
FORMS = (
    *(day + hour for day, hour in product(_DAYS, _HOURS)),
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y",
    "%a, %d %b %Y %H:%M:%S %z",
)
_TESTED = 500  # different values that a form of time is tried on
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class TimeReading:
    """How a column can be read as times: the keys of ingest.table."""

    unit: str
    form: str
    why: str


@dataclass(frozen=True)
class Column:
    """`values`: as text, null where there is nothing. `shape`: what they are in the file."""

    name: str
    values: pl.Series
    shape: Literal["text", "number", "time", "list", "object"]

    @classmethod
    def of_values(cls, name: str, values: Sequence[Any], as_text: Callable[[Any], str]) -> Self:
        """Of a JSON or text file."""
        nested = [value for value in values if isinstance(value, list | dict)]
        if nested:
            shape: Any = "list" if isinstance(nested[0], list) else "object"
            return cls(name, pl.Series(name, [None if value is None else str(value) for value in values], pl.String), shape)
        words = {True: "true", False: "false"}
        texts = [None if value is None else words[value] if isinstance(value, bool) else as_text(value).strip() or None for value in values]
        return cls(name, pl.Series(name, texts, pl.String), "list" if _are_written_lists(texts) else "text")

    @classmethod
    def of_series(cls, series: pl.Series) -> Self:
        """Of a Parquet file."""
        dtype = series.dtype
        if dtype.is_temporal():
            return cls(series.name, series.cast(pl.String, strict=False), "time")
        if dtype.is_nested():
            texts = [None if value is None else str(value) for value in series.to_list()]
            return cls(series.name, pl.Series(series.name, texts, pl.String), "list" if isinstance(dtype, pl.List) else "object")
        if dtype.is_float() and (series.drop_nulls() == series.drop_nulls().round()).all():
            series = series.cast(pl.Int64, strict=False)
        text = series.cast(pl.String, strict=False)
        return cls(series.name, text.set(text == "", None), "number" if dtype.is_numeric() else "text")

    @cached_property
    def filled(self) -> pl.Series:
        return self.values.drop_nulls()

    @cached_property
    def distinct(self) -> pl.Series:
        return self.filled.unique(maintain_order=True)

    @cached_property
    def is_numeric(self) -> bool:
        return self.shape in ("text", "number") and len(self.filled) > 0 and all(map(is_number, self.distinct[:_TESTED]))

    @cached_property
    def is_integer(self) -> bool:
        return self.is_numeric and bool(self.distinct.str.contains(r"^[+-]?\d+$").all())

    @property
    def is_unique(self) -> bool:
        """Every row has a value, another in each."""
        return len(self.filled) == len(self.values) == len(self.distinct)

    @cached_property
    def is_id(self) -> bool:
        """Short, without spaces, and no measure: what may name users or items."""
        if self.shape not in ("text", "number") or not len(self.filled) or (self.is_numeric and not self.is_integer):
            return False
        return share(self.distinct.str.contains(r"\s") | (self.distinct.str.len_chars() > 64)) < 0.1

    @cached_property
    def is_prose(self) -> bool:
        """Words: what may be a title."""
        return self.shape == "text" and not self.is_numeric and share(self.distinct.str.contains(r"\p{L}{2}")) > 0.8

    @cached_property
    def times(self) -> list[TimeReading]:
        """All ways to read it as times; more than one for 05/06/2024."""
        tested = self.distinct[:_TESTED]
        if self.shape == "time":
            return [TimeReading("s", "", "dates of Parquet")]
        if self.shape in ("list", "object") or tested.is_empty():
            return []
        readings = []
        if self.is_numeric:
            numbers = tested.cast(pl.Float64, strict=False)
            for unit, factor in _UNITS.items():
                if ((numbers >= _FROM * factor) & (numbers <= _TO * factor)).fill_null(False).all():
                    readings.append(TimeReading(unit, "", f"numbers that are times of 1990 to 2040 in {unit} since 1970"))
        if parse_times(tested, ISO).is_not_null().all():
            zone = bool(tested.str.contains(r"(Z|UTC|[+-]\d\d:?\d\d)$").all())
            readings.append(TimeReading("s", ISO, f"ISO 8601{'' if zone else ', without a zone: read as UTC'}"))
        if not self.is_numeric:
            fitting = [form for form in FORMS if parse_times(tested, form).is_not_null().all()]
            readings += [TimeReading("s", form, f"text that fits {form} alone, read as UTC where it has no zone") for form in fitting]
        return readings

    @cached_property
    def is_clock(self) -> bool:
        """Times of day alone."""
        return len(self.filled) > 0 and bool(self.distinct.str.contains(r"^\d{1,2}:\d\d(:\d\d(\.\d+)?)?( ?[AaPp][Mm])?$").all())

    @cached_property
    def has_decimal_commas(self) -> bool:
        """Numbers as 4,5 and none as 4.5. Where all have three digits behind it, the comma may as well stand between thousands."""
        commas = self.distinct.filter(self.distinct.str.contains(",", literal=True))
        if not self.is_numeric or commas.is_empty() or self.distinct.str.contains(".", literal=True).any():
            return False
        return not commas.str.contains(r"^[+-]?\d{1,3}(,\d{3})+$").all()

    def describe(self) -> str:
        """For the list of what is not used."""
        if self.shape in ("list", "object"):
            return f"{self.shape}s"
        if self.is_numeric:
            numbers = self.distinct.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False).to_numpy()
            return f"numbers, {_number(numbers.min())} to {_number(numbers.max())}"
        return f"{len(self.distinct):,} different texts"


def _number(value: float) -> str:
    """Whole ones in full: an id as 9.78e+12 is no id."""
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 2**53 else f"{value:g}"


def _are_written_lists(texts: Sequence[str | None]) -> bool:
    """Whether all are lists as Python, JSON or numpy writes them, as in the cells of a CSV file."""
    filled = [text for text in texts if text]
    return (
        all(text.startswith("[") for text in filled)
        and bool(filled)
        and all(isinstance(written_list(text), list) for text in filled[:_TESTED])
    )


def share(holds: pl.Series) -> float:
    """Of true values; 0 of none."""
    return float(holds.mean() or 0.0)  # type: ignore[arg-type]


def is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None
