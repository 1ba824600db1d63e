"""Times that are written as text -> instants. A time without a zone counts as UTC."""

import polars as pl

from stages.shared.core.errors import StageError

ISO = "iso"
# ISO 8601 as programs write it: basic or extended, T or a space, seconds and their fraction or none, a zone or none.
_ISO = (
    r"^(\d{4})-?(\d\d)-?(\d\d)(?:[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?)?"
    r"\s*(?:(?:Z|UTC)|([+-])(\d\d):?(\d\d)?)?$"
)
_NANOSECOND_YEARS = (1678, 2261)  # what 64 bits of nanoseconds hold whole


def with_times(rows: pl.DataFrame, form: str) -> pl.DataFrame:
    """A parsed block (validate.py) with `timestamp` as instants, and a reason where the text is none of this form."""
    if rows.schema["timestamp"].is_temporal():
        return rows
    times = parse_times(rows["timestamp"].cast(pl.String), form)
    wrong = pl.when(times.is_null()).then(pl.lit(f"timestamp is no time of the form {form}"))
    return rows.with_columns(times.alias("timestamp"), reason=pl.coalesce("reason", wrong))


def parse_times(texts: pl.Series, form: str) -> pl.Series:
    """Datetime, UTC, to the microsecond, or to the nanosecond where a text has more digits; null where it is none of the form.

    form: "iso", or a pattern as strftime knows it.
    """
    texts = texts.str.strip_chars()
    if form != ISO:
        try:
            times = texts.str.to_datetime(form, time_unit="us", strict=False, ambiguous="null")
        except pl.exceptions.PolarsError as error:
            raise StageError(f"ingest.table.time_format: '{form}' is no pattern of times ({error}); write it as %Y-%m-%d %H:%M") from None
        return times.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if getattr(times.dtype, "time_zone", None) else times
    fields = texts.str.extract_groups(_ISO).struct.unnest()
    year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes = (fields[name] for name in fields.columns)
    plain = pl.select(
        pl.concat_str(year, month, day, *(part.fill_null("00") for part in (hour, minute, second))).alias("plain")
    ).to_series()
    seconds = plain.str.to_datetime("%Y%m%d%H%M%S", time_unit="us", strict=False)
    offset = zone_hours.cast(pl.Int64).fill_null(0) * 60 + zone_minutes.cast(pl.Int64).fill_null(0)
    minutes_east = offset * (1 - 2 * (sign == "-").fill_null(False).cast(pl.Int64))
    nanos = fraction.str.pad_end(9, "0").cast(pl.Int64).fill_null(0)
    parts = pl.DataFrame({"seconds": seconds, "east": minutes_east, "nanos": nanos})
    moved = pl.col("seconds") - pl.duration(minutes=pl.col("east"), time_unit="us")
    if not (nanos % 1000 != 0).any():
        return parts.select(moved + pl.duration(microseconds=pl.col("nanos") // 1000, time_unit="us")).to_series()
    held = pl.when(pl.col("seconds").dt.year().is_between(*_NANOSECOND_YEARS)).then(moved.cast(pl.Datetime("ns")))
    return parts.select(held + pl.duration(nanoseconds=pl.col("nanos"), time_unit="ns")).to_series()
