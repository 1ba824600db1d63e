"""`python -m stages.tools.intake.init FOLDER`: says what its files are taken for, and writes the profile that ingests them.

Exit code 2 where more than one reading is possible: it says which flag decides, and writes nothing. 1 where the data cannot be read.
"""

import argparse
import difflib
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from stages.ingest.build.quarantine import TooManyBadRows
from stages.ingest.params import IngestParams
from stages.ingest.sources import mind, recbole
from stages.ingest.sources.source import known_forms
from stages.ingest.sources.table import separator_of
from stages.retrieve.params import RetrieveParams
from stages.shared.core.errors import StageError
from stages.shared.sources.mind import LOG as MIND_LOG
from stages.tools.intake.choices import FLAGS, LIST_FLAGS, TABLE_KEYS, Choices
from stages.tools.intake.lists.preview import base_share, list_sections
from stages.tools.intake.lists.shown import find_lists
from stages.tools.intake.look import FileLook
from stages.tools.intake.overlay import Made, other_sections, overlay_text, profile_name, write_profile
from stages.tools.intake.parts import looks
from stages.tools.intake.preview import MissingItems, read_whole, split_keys, table_lines
from stages.tools.intake.roles import Lists, decide, decide_with_lists

SCRATCH = Path(".gr2") / "init"
UNDECIDED = 2
Checked = TypeVar("Checked", bound=BaseModel)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gr2 init", description="What the files of a folder are, and the profile that ingests them.")
    parser.add_argument("folder", type=Path)
    for flag, text in FLAGS.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", dest=flag, help=text)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    choices = Choices({flag: value for flag in FLAGS if (value := getattr(options, flag)) is not None})
    try:
        # Readers tell their progress on standard output, which may be for JSON alone.
        with redirect_stdout(sys.stderr):
            outcome = init(options.folder, choices)
    except StageError as error:
        print(f"gr2 init: {error}", file=sys.stderr)
        return 1
    print(json.dumps(outcome, indent=2, ensure_ascii=False) if options.json else "\n".join(as_text(outcome)))
    return UNDECIDED if outcome["questions"] else 0


def init(folder: Path, choices: Choices) -> dict[str, Any]:
    """Looks, decides, reads, writes; what --json prints. Without `profile` where questions are left."""
    if not folder.is_dir():
        raise StageError(f"{folder}: {_no_folder(folder)}")
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not paths:
        raise StageError(f"{folder}: empty; put the log of who took what there")
    outcome: dict[str, Any] = {"folder": str(folder), "files": [], "taken": {}, "unused": [], "questions": []}
    forms = known_forms(folder, choices.given.get("category", ""))
    if len(forms) > 1 and "interactions" not in choices.given:
        raise StageError(
            f"{folder}: holds several forms at once; leave the files of one of these, or say --interactions FILE: {'; '.join(forms)}"
        )
    section: dict[str, Any] = {"folder": os.path.relpath(folder) if folder.resolve().is_relative_to(Path.cwd()) else str(folder.resolve())}
    shown: Path | None = None  # the file of lists
    given: Made = {}
    if len(forms) == 1 and not {"interactions", "items", "lists"} & choices.given.keys() and not recbole.has_other_names(folder):
        section |= {"source": "folder", "category": choices.given.get("category", "")}
        outcome["taken"]["source"] = {"value": forms[0], "why": "by the names of the files"}
        made: Made = {}
        if mind.has_files(folder):
            shown = Path(MIND_LOG)
            given = {"format": ("mind", "MIND's impressions"), "order": ("shuffled", "its publishers have shuffled each")}
            outcome["lists"] = as_told(given)
    else:
        files = looks(folder, choices)
        outcome["files"] = [str(file) for file in files]
        log, items, lists = _decide(files, choices)
        outcome["questions"] = as_asked(choices)
        choices.made = {key: choices.made[key] for key in TABLE_KEYS if key in choices.made}
        outcome["taken"] = as_told(choices.made)
        outcome["lists"] = as_told({"file": (lists.file.file.name, lists.file.why), **lists.made}) if lists else {}
        if choices.questions or log is None:
            return outcome
        tables = [log, *([items] if items else [])]
        made = _text_keys(tables, choices)
        outcome["unused"] = unused(tables, {**made, **(lists.made if lists else {})})
        section |= {"source": "table", "table": {key: value for key, (value, _) in made.items()}}
        if lists:
            section |= {"min_rating": float(lists.min_rating)} if lists.min_rating else {}
            shown, given = Path(lists.file.file.location()), lists.made
    if missing := choices.given.get("missing_items"):
        section["missing_items"] = missing
    if bad_share := choices.given.get("max_bad_share"):
        section["max_bad_share"] = most = _share(bad_share)
        given = given | {"max_bad_share": (most, "as said")} if shown else given
    name = profile_name(folder.resolve(), choices.given.get("name", ""))
    retrieve = {"model": "given", "reads": f"{section['folder']}/{shown}"} if shown else {}
    params, logged = _validated(IngestParams, section), None
    if shown:
        logged = _validated(RetrieveParams, retrieve | {"given": {key: value for key, (value, _) in given.items()}}, "retrieve.")
    try:
        preview = read_whole(params, SCRATCH, logged)
    except MissingItems as error:
        choices.ask(str(error), "missing_items", ["id", "drop"])
        return outcome | {"questions": as_asked(choices)}
    except TooManyBadRows as error:
        raise StageError(f"{error}\nto go on without them: gr2 init ... --max-bad-share SHARE") from None
    split, why_split = split_keys(preview.lengths)
    has_titles = "title" not in made or bool(made["title"][0])
    sections, reasons = other_sections(has_titles, preview.has_times, preview.items)
    why = [why_split, *reasons]
    if preview.lists:
        if share := base_share(preview.lists):
            split |= {"base_share": share[0]}
            why.append(share[1])
        sizes, more, reasons = list_sections(preview.lists)
        sections |= {"retrieve": retrieve | sizes} | more
        why += reasons
        outcome |= {"lists_rows": preview.lists.rows, "lists_sizes": preview.lists.sizes()}
    keys = {key: value for key, value in section.items() if key != "table"}
    text = overlay_text(f"{', '.join(path.name for path in paths)} of {folder}", made, keys | split, sections, why, given)
    outcome |= {"rows": preview.rows, **preview.sizes(), "why": why}
    return outcome | {"name": name, "profile": str(write_profile(name, text))}


def _no_folder(folder: Path) -> str:
    if folder.exists():
        return f"a file, not a folder; name one that holds it, and what is known of the items, alone: gr2 init {folder.parent}"
    near = difflib.get_close_matches(folder.name, [path.name for path in folder.parent.glob("*/")], n=1)
    return f"no such folder{f'; did you mean {folder.parent / near[0]}?' if near else ''}"


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise StageError(f"--max-bad-share {text}: a share is a number from 0 to 1, as 0.05") from None


def _decide(files: list[FileLook], choices: Choices) -> tuple[FileLook | None, FileLook | None, Lists | None]:
    """The log, the file of items and that of lists; no log after a question."""
    lists = find_lists(files, choices) if not choices.questions else None
    if choices.questions:
        return None, None, None
    if lists:
        return decide_with_lists(files, lists, choices)
    if said := [flag for flag in LIST_FLAGS if flag in choices.given]:
        raise StageError(f"--{said[0].replace('_', '-')}: no file here holds lists that were shown; say --lists FILE where one does")
    return *decide(files, choices), None


def as_asked(choices: Choices) -> list[dict[str, Any]]:
    return [{"what": question.what, "flags": question.flags} for question in choices.questions]


def as_told(made: Made) -> dict[str, Any]:
    return {key: {"value": value, "why": why} for key, (value, why) in made.items()}


def _text_keys(files: list[FileLook], choices: Choices) -> dict[str, tuple[str, str]]:
    """What was decided, and how the text files are cut: by one separator, where an ending does not say it."""
    made = dict(choices.made)
    cut = [file for file in files if file.separator]
    if other := [file for file in cut if separator_of(file.first) != file.separator]:
        if len({file.separator for file in cut}) > 1:
            raise StageError(f"{' and '.join(file.name for file in cut)} have different separators; write one of them anew as .csv or .tsv")
        made["separator"] = (other[0].separator, "as said" if "separator" in choices.given else "it cuts all lines alike")
    if encodings := [file.encoding for file in cut if file.encoding != "utf-8"]:
        made["encoding"] = (encodings[0], "as said")
    if licence := choices.given.get("licence"):
        made["licence"] = (licence, "as said")
    return made


def _validated(model: type[Checked], section: dict[str, Any], prefix: str = "") -> Checked:
    """StageError with the keys that are wrong, behind `prefix`."""
    try:
        return model.model_validate(section)
    except ValidationError as error:
        raise StageError("; ".join(f"{prefix}{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())) from None


def unused(files: list[FileLook], made: dict[str, tuple[str, str]]) -> list[str]:
    used = {value for value, _ in made.values()}
    return [f"{file.name}: {name} ({column.describe()})" for file in files for name, column in file.columns.items() if name not in used]


def as_text(outcome: dict[str, Any]) -> list[str]:
    lines = [f"{outcome['folder']}:", *(f"  {file}" for file in outcome["files"])]
    if outcome["taken"]:
        lines += ["", "Taken as:"]
        width = max(map(len, outcome["taken"]))
        lines += [f"  {key.ljust(width)}  {_shown(choice['value'])}: {choice['why']}" for key, choice in outcome["taken"].items()]
        lines += [f"  not used: {', '.join(outcome['unused'])}"] if outcome["unused"] else []
    if outcome.get("lists"):
        width = max(map(len, outcome["lists"]))
        lines += ["", "Lists that were shown:"]
        lines += [f"  {key.ljust(width)}  {_shown(choice['value'])}: {choice['why']}" for key, choice in outcome["lists"].items()]
    if outcome["questions"]:
        asked = [f"  {question['what']}: {' or '.join(question['flags'])}" for question in outcome["questions"]]
        return [*lines, "", "More than one reading is possible, and nothing was written:", *asked]
    span = f", {outcome['first']} to {outcome['last']} (UTC)" if outcome["first"] else ""
    lines += ["", "The first rows, as ingest understands them:", *(f"  {line}" for line in table_lines(outcome["rows"]))]
    counts = f"{outcome['users']:,} users and {outcome['items']:,} items, {outcome['median_per_user']:g} items a user in the middle"
    lines += [f"{outcome['log_rows']:,} rows{span}; {counts}", *(f"  {line}" for line in _rejected(outcome["rejected"]))]
    if "lists_rows" in outcome:
        lines += ["", "The first lists, as retrieve understands them:", *(f"  {line}" for line in table_lines(outcome["lists_rows"]))]
        lines.append(_list_counts(outcome["lists_sizes"]))
    lines += outcome["why"]
    name = outcome["name"]
    return [*lines, "", f"Written: {outcome['profile']}", f"Next: gr2 validate --profile {name}; then gr2 run --profile {name}"]


def _shown(value: str) -> str:
    return value if value.strip() else "(a space)" if value else "(none)"


def _list_counts(sizes: dict[str, Any]) -> str:
    refused = "".join(f"; {count:,} refused: {reason}" for reason, count in sizes["refused"].items())
    return (
        f"{sizes['lists']:,} lists of {sizes['mean_length']:g} items on average, {sizes['longest']} at most; nothing was taken from "
        f"{sizes['nothing_taken']:,}, several from {sizes['several_taken']:,}{refused}"
    )


def _rejected(counts: dict[str, dict[str, int]]) -> list[str]:
    return [f"{file}: {rows:,} rows left out: {reason}" for file, reasons in counts.items() for reason, rows in reasons.items()]


if __name__ == "__main__":
    sys.exit(main())
