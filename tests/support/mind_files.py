"""A small MIND: behaviors.tsv and news.tsv in the official layout, every value made up."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

NEWS, READERS, HISTORY, SHOWINGS = 40, 30, 8, 6
START = datetime(2019, 11, 9, 8, 0, tzinfo=UTC)


def time_text(moment: datetime) -> str:
    """As MIND writes it: no leading zero before month, day or hour."""
    hour = moment.hour % 12 or 12
    return f"{moment.month}/{moment.day}/{moment.year} {hour}:{moment:%M:%S} {'AM' if moment.hour < 12 else 'PM'}"


def news_rows() -> list[str]:
    kinds = [("sports", "football_nfl"), ("news", "newsus"), ("health", "wellness"), ("finance", "")]
    return [
        "\t".join([f"N{i}", *kinds[i % 4], f"Headline {i}", f"Abstract {i}", f"https://example.org/{i}.html", "[]", "[]"])
        for i in range(NEWS)
    ]


def behavior_rows(seed: int = 0, several: bool = False) -> list[str]:
    """READERS users with the same history in each of their SHOWINGS impressions, in an order that is not that of time."""
    rng = np.random.default_rng(seed)
    rows = []
    for reader in range(READERS):
        items = rng.permutation(NEWS).tolist()
        history, rest = items[:HISTORY], items[HISTORY:]
        for showing in range(SHOWINGS):
            clicks = [rest.pop() for _ in range(2 if several and showing % 2 else 1)]
            shown = rng.permutation([*clicks, *rng.choice(rest, int(rng.integers(2, 7)), replace=False)]).tolist()
            moment = START + timedelta(hours=7 * showing, minutes=reader)
            marks = " ".join(f"N{item}-{int(item in clicks)}" for item in shown)
            rows.append([f"U{reader}", time_text(moment), " ".join(f"N{item}" for item in history), marks])
    return ["\t".join([str(number), *rows[row]]) for number, row in enumerate(rng.permutation(len(rows)).tolist(), 1)]


def write_mind(folder: Path, **options: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviors.tsv").write_text("".join(f"{row}\n" for row in behavior_rows(**options)), encoding="utf-8")
    (folder / "news.tsv").write_text("".join(f"{row}\n" for row in news_rows()), encoding="utf-8")
    return folder
