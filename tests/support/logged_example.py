"""The files of infra/examples/logged-slates, made up: `python -m tests.support.logged_example FOLDER` writes them."""

import csv
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

LISTENERS, SONGS, PLAYS, LOGGED_FROM = 60, 64, 24, 8
GENRES = ("folk", "jazz", "metal", "house", "opera", "blues", "ska", "soul")
ADJECTIVES = ("Quiet", "Golden", "Broken", "Electric", "Paper", "Northern", "Second", "Velvet")
NOUNS = ("River", "Signal", "Harbour", "Morning", "Engine", "Garden", "Letter", "Parade")
START = datetime(2024, 3, 1, 18, 0, tzinfo=UTC)
Row = list[str | int]


def songs() -> list[Row]:
    """id, title, band, genre."""
    return [[f"s{i:02}", f"{ADJECTIVES[i % 8]} {NOUNS[i // 8]}", f"The {NOUNS[(i * 3) % 8]}s", GENRES[i % 8]] for i in range(SONGS)]


def plays_and_slates(seed: int = 11) -> tuple[list[Row], list[Row]]:
    """(listener, song, played at) and (listener, shown at, songs, played of them, worth). A listener stays with a genre for a while; every
    play from LOGGED_FROM on came from a list, whose first places are looked at most."""
    rng = np.random.default_rng(seed)
    plays: list[Row] = []
    slates: list[Row] = []
    for listener in range(LISTENERS):
        moment = START + timedelta(hours=int(rng.integers(0, 72)))
        tastes, genre, heard = rng.permutation(8)[:3], 0, set[int]()
        while len(heard) < PLAYS:
            moment += timedelta(minutes=int(rng.integers(30, 900)))
            genre = int(rng.choice(tastes)) if rng.random() < 0.4 else genre
            several = len(heard) >= LOGGED_FROM and len(heard) < PLAYS - 1 and rng.random() < 0.25
            fitting = [song for song in range(SONGS) if song not in heard and (song % 8 == genre or rng.random() < 0.1)]
            taken = rng.permutation(fitting)[: 2 if several else 1].tolist() or [min(set(range(SONGS)) - heard)]
            if len(heard) >= LOGGED_FROM:
                others = rng.permutation([song for song in range(SONGS) if song not in heard | set(taken)])
                shown = rng.permutation([*taken, *others[: int(rng.integers(3, 8))]]).tolist()
                # Looked at from the top: what was taken stands high more often than chance has it.
                shown.sort(key=lambda song: rng.random() - 0.4 * (song in taken))
                worth = [int(rng.integers(1, 3)) for _ in taken]
                told = [" ".join(f"s{song:02}" for song in part) for part in (shown, taken)]
                slates.append([f"listener{listener}", f"{moment:%Y-%m-%dT%H:%M:%SZ}", *told, " ".join(map(str, worth))])
            for song in taken:
                heard.add(song)
                plays.append([f"listener{listener}", f"s{song:02}", int((moment + timedelta(minutes=len(heard) % 3)).timestamp())])
    return plays, slates


def write(folder: Path) -> None:
    plays, slates = plays_and_slates()
    (folder / "log").mkdir(parents=True, exist_ok=True)
    for name, header, rows in (
        ("log/plays.csv", ["listener", "song", "played_at"], plays),
        ("log/songs.csv", ["song", "name", "artist", "genres"], songs()),
        ("shown.csv", ["listener", "shown_at", "songs", "played", "worth"], slates),
    ):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    write(Path(sys.argv[1]))
