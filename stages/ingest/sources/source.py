"""Finds the raw files of a source in ingest.folder, which is data/raw where the stage fetch put them, and reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from stages.ingest.params import IngestParams
from stages.ingest.readers.chunks import Input
from stages.ingest.readers.forget import Forgotten
from stages.ingest.readers.raw import RawFile, RawLog
from stages.ingest.readers.validate import StagingTables
from stages.ingest.sources import amazon, kuairec, mind, movielens, movielens_wheel, recbole, sequences, table
from stages.ingest.sources.json_logs import JSON_LOGS, has_log, read_json_log
from stages.ingest.sources.parts import shown_name
from stages.ingest.sources.world import read_world
from stages.shared.core.errors import StageError
from stages.shared.sources.mind import LOG as MIND_LOG
from stages.shared.sources.published import ARCHIVES, WHEEL, verify_download

_GROUPLENS = "GroupLens: free for research with acknowledgement; not to be redistributed or used commercially without permission."
_AMAZON = (
    "Collected by the McAuley Lab, UCSD, for research, who state no licence; cite their paper. The texts belong to Amazon and its users."
)
_KUAIREC = "Kuaishou and its authors: CC BY-SA 4.0; cite Gao et al., CIKM 2022."
_MIND = "Microsoft Research License Terms: for research, not commercially; cite Wu et al., ACL 2020."
_NOT_STATED = "Not stated in the files."
Reader = Callable[[Input, StagingTables], RawFile]
_MOVIELENS: dict[str, tuple[str, str, Reader, Reader]] = {  # files of the log and of the items, and who reads them
    "100k": ("u.data", "u.item", movielens.read_u_data, movielens.read_u_item),
    "1m": ("ratings.dat", "movies.dat", movielens.read_ratings_dat, movielens.read_movies_dat),
    "10m": ("ratings.dat", "movies.dat", movielens.read_ratings_dat, movielens.read_movies_dat),
    "25m": ("ratings.csv", "movies.csv", movielens.read_ratings_csv, movielens.read_movies_csv),
    "32m": ("ratings.csv", "movies.csv", movielens.read_ratings_csv, movielens.read_movies_csv),
}
_SAME_LAYOUT = {"10m", "32m"}  # as 1m and 25m: the names of the files do not tell them apart
_ALIKE = {"1m": " or 10M", "25m": " or 32M"}


def read_source(params: IngestParams, scratch: Path) -> RawLog:
    """Reads the source of `params`; writes the three tables of the RawLog into the folder `scratch`, which the caller removes."""
    staging = StagingTables(scratch, Forgotten(params.forget, params.forget_salt))
    if params.source == "synthetic":
        return read_world(params.world, staging)
    folder = Path(params.folder)
    if not folder.is_dir():
        remedy = "ingest.folder must name the one that holds the raw files" if params.has_folder else "run: gr2 run fetch"
        raise StageError(f"{folder}: no such folder; {remedy}")
    family, _, release = params.source.partition("-")
    if params.source == "table":
        return _read_table(folder, params, staging)
    if params.source == "folder":
        return _recognised(folder, _forms(params.category)).read(folder, staging)
    if params.source == "movielens-100k":
        return _read_wheel(folder, staging) if (folder / WHEEL).is_file() else _recognised(folder, _forms("")[:2]).read(folder, staging)
    if family == "movielens":
        # Unpacked files win: whoever unpacked them may have edited them.
        archived = (folder / ARCHIVES[release].name).is_file() and not _has_any(folder, _MOVIELENS[release][:2])
        return _read_archive(folder, release, staging) if archived else _read_movielens(folder, staging, release)
    if params.source == "kuairec":
        return _read_kuairec(folder, staging)
    if params.source in JSON_LOGS:
        return read_json_log(folder, params.source, params.category, staging)
    if params.source == "mind":
        return _read_mind(folder, staging)
    return _read_amazon(folder, staging, release, params.category)


@dataclass(frozen=True)
class SourceLayout:
    """A form in which the raw files may lie in a folder."""

    what: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, StagingTables], RawLog]


def _forms(category: str) -> list[SourceLayout]:
    """All that can be told by the names of the files; MovieLens-100K's two come first."""
    return [
        SourceLayout("*.inter, perhaps with *.item (RecBole)", recbole.has_files, _read_recbole),
        *[
            SourceLayout(
                f"{log} and {items} (MovieLens-{release.upper()}{_ALIKE.get(release, '')})",
                partial(_has_any, names=(log, items)),
                partial(_read_movielens, which=release),
            )
            for release, (log, items, _, _) in _MOVIELENS.items()
            if release not in _SAME_LAYOUT
        ],
        *[
            SourceLayout(
                f"{' or '.join(logs)}, with {amazon.METAS[generation]} (Amazon Reviews {generation}, {{C}} the category; also .gz)",
                partial(_has_amazon, generation=generation, category=category),
                partial(_read_any_amazon, generation=generation, category=category),
            )
            for generation, logs in amazon.LOGS.items()
        ],
        *[
            SourceLayout(
                f"{published.log} and {published.items} ({published.title}; also .gz)",
                partial(has_log, source=source),
                partial(_read_any_json_log, source=source, category=category),
            )
            for source, published in JSON_LOGS.items()
        ],
        SourceLayout(f"{kuairec.LOGS[0]} and {kuairec.VIDEOS} (KuaiRec)", kuairec.has_files, _read_kuairec),
        SourceLayout("behaviors.tsv and news.tsv (MIND)", mind.has_files, _read_mind),
        SourceLayout("sequences.txt and items.jsonl (plain pair)", partial(_has_any, names=("sequences.txt", "items.jsonl")), _read_pair),
    ]


def known_forms(folder: Path, category: str = "") -> list[str]:
    """The forms that the names of the files in `folder` make it, in words; `source: folder` reads it where there is one."""
    return [form.what for form in _forms(category) if form.matches(folder)]


def _recognised(folder: Path, forms: list[SourceLayout]) -> SourceLayout:
    matching = [form for form in forms if form.matches(folder)]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
    known_forms = "".join(f"\n  {form.what}" for form in forms)
    if matching:
        raise StageError(f"{folder}: holds several forms at once (it has: {names}); leave the files of one of these:{known_forms}")
    raise StageError(
        f"{folder}: no known form of raw files (it has: {names}); put there one of these:{known_forms}\nor use ingest.source: table"
    )


def _has_any(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).exists() for name in names)


def _read_wheel(folder: Path, scratch: StagingTables) -> RawLog:
    path = folder / WHEEL
    files = []
    for member, read in ((movielens_wheel.INTER, recbole.read_inter), (movielens_wheel.ITEM, recbole.read_item)):
        source = Input(path, member)
        files.append(read(source, scratch))
        movielens_wheel.check_member(source, files[-1])
    return scratch.finish(f"MovieLens-100K ({WHEEL})", _GROUPLENS, [RawFile.of(path), *files], "Genres")


def _read_archive(folder: Path, release: str, scratch: StagingTables) -> RawLog:
    """The members of the zip archive are read as they stand in it; nothing is unpacked."""
    published = ARCHIVES[release]
    archive = folder / published.name
    if wrong := verify_download(archive, published):
        raise StageError(f"{archive}: {wrong}; fetch it again from {published.url}")
    log, items, read_log, read_items = _MOVIELENS[release]
    top = "ml-10M100K" if release == "10m" else archive.stem  # ml-1m.zip holds ml-1m/ratings.dat
    files = [read_log(Input(archive, f"{top}/{log}"), scratch), read_items(Input(archive, f"{top}/{items}"), scratch)]
    return scratch.finish(f"MovieLens-{release.upper()} ({archive.name})", _GROUPLENS, [RawFile.of(archive), *files], "Genres")


def _read_movielens(folder: Path, scratch: StagingTables, which: str) -> RawLog:
    log, items, read_log, read_items = _MOVIELENS[which]
    for name in (log, items):
        if not (folder / name).exists():  # a folder of that name is told by the reader
            raise StageError(f"{folder / name}: no such file; {log} and {items} must stand side by side in ingest.folder")
    files = [read_log(Input(folder / log), scratch), read_items(Input(folder / items), scratch)]
    return scratch.finish(f"MovieLens-{which.upper()} ({log})", _GROUPLENS, files, "Genres")


def _read_recbole(folder: Path, scratch: StagingTables) -> RawLog:
    log, items = recbole.find(folder)
    file, has_times = recbole.read_own_inter(log, scratch)
    files = [file, recbole.read_item(items, scratch) if items else recbole.read_items_of_inter(log, scratch)]
    time: Literal["seconds", "order"] = "seconds" if has_times else "order"
    alone = items is None  # an item then stands in many rows
    return scratch.finish(f"RecBole files ({log.name})", _NOT_STATED, files, "Genres", time, same_again=alone, first_counts=alone)


def _has_amazon(folder: Path, generation: str, category: str) -> bool:
    return bool(set(amazon.categories_in(folder, generation)) & {category} if category else amazon.categories_in(folder, generation))


def _read_any_amazon(folder: Path, scratch: StagingTables, generation: str, category: str) -> RawLog:
    categories = [category] if category else amazon.categories_in(folder, generation)
    if len(categories) > 1:
        raise StageError(f"{folder}: holds several categories ({', '.join(categories)}); name one in ingest.category")
    return _read_amazon(folder, scratch, generation, categories[0])


def _read_amazon(folder: Path, scratch: StagingTables, generation: str, category: str) -> RawLog:
    log, items = amazon.find(folder, generation, category)
    files = [amazon.read_log(log, generation, scratch), amazon.read_meta(items, generation, scratch)]
    # The official metadata list many products twice, word for word; that is no fault of a row.
    return scratch.finish(f"Amazon Reviews {generation}, {category} ({log.name})", _AMAZON, files, "Categories", same_again=True)


def _read_any_json_log(folder: Path, scratch: StagingTables, source: str, category: str) -> RawLog:
    return read_json_log(folder, source, category, scratch)


def _read_kuairec(folder: Path, scratch: StagingTables) -> RawLog:
    log, videos = kuairec.find(folder)
    archive = folder / kuairec.ARCHIVE
    files = [RawFile.of(archive)] if log.member else []
    files += [kuairec.read_log(log, scratch), kuairec.read_videos(videos, scratch)]
    return scratch.finish(f"KuaiRec ({log.name})", _KUAIREC, files, "Categories", same_again=True)


def _read_mind(folder: Path, scratch: StagingTables) -> RawLog:
    files = [mind.read_behaviors(Input(folder / MIND_LOG), scratch), mind.read_news(Input(folder / mind.ITEMS), scratch)]
    return scratch.finish(f"MIND ({MIND_LOG})", _MIND, files, "Categories")


def _read_pair(folder: Path, scratch: StagingTables) -> RawLog:
    files = [
        sequences.read_sequences(Input(folder / "sequences.txt"), scratch),
        sequences.read_items(Input(folder / "items.jsonl"), scratch),
    ]
    return scratch.finish("Sequences (sequences.txt)", _NOT_STATED, files, "Categories", time="order")


def _read_table(folder: Path, params: IngestParams, scratch: StagingTables) -> RawLog:
    files = [table.read_interactions(folder, params.table, scratch), table.read_items(folder, params.table, scratch)]
    time: Literal["seconds", "order"] = "seconds" if params.table.timestamp else "order"
    alone = params.table.in_log
    return scratch.finish(
        f"Table ({shown_name(params.table.interactions)})",
        params.table.licence,
        files,
        "Categories",
        time,
        same_again=alone,
        first_counts=alone,
    )
