"""Forgeries of what the stages made: the workspace, DVC's cache, dvc.lock."""

import shutil

from forgery_kinds import (
    ALL,
    CACHE,
    CODE,
    DATA,
    FOLDER,
    LOCK,
    OUT,
    PROJECT,
    Forgery,
    both,
    cached,
    edit,
    edit_run_cache,
    entry,
    flip,
    git,
    member,
    of_d,
    remove,
    rename,
    swap,
)
from forgery_project import forge_output, forge_run_record, note_open, reorder_lock, write

from tasks.dvc.dir_listing import object_path
from tasks.lineage.verify import verify

NOT_CURRENT = "its stage is not current: `gr2 plan` names it, and the next run makes it anew"

FILES = (
    Forgery("a byte of an output changed, size and time as before", DATA, edit(OUT, flip(0)), "data"),
    Forgery("an output emptied", DATA, edit(OUT, lambda text: b""), "data"),
    Forgery("a line added to an output", DATA, edit(OUT, lambda text: text + b"x\n"), "data"),
    Forgery("an output replaced by that of another stage", DATA, lambda root: shutil.copy(root / "data/a/out.txt", root / OUT), "data"),
    Forgery("an output removed", DATA, remove(OUT), "data"),
    Forgery(
        "an output replaced by a link to another file",
        DATA,
        both(remove(OUT), lambda root: (root / OUT).symlink_to("metrics.json")),
        "data",
    ),
    Forgery("an output replaced by a folder", DATA, both(remove(OUT), lambda root: (root / OUT).mkdir()), "data"),
    Forgery("a byte of a file in an output folder changed", DATA, edit(f"{FOLDER}/weights.bin", flip(0)), "data"),
    Forgery("a file put into an output folder", DATA, lambda root: write(root / FOLDER / "more.bin", b"x"), "data"),
    Forgery("a file of an output folder removed", DATA, remove(f"{FOLDER}/weights.bin"), "data"),
    Forgery("a file of an output folder renamed", DATA, rename(f"{FOLDER}/weights.bin", f"{FOLDER}/w.bin"), "data"),
    Forgery("an output folder removed", DATA, remove(FOLDER), "data"),
    Forgery("an output folder replaced by a file", DATA, both(remove(FOLDER), lambda root: write(root / FOLDER, b"x")), "data"),
    Forgery("a metric changed", DATA, edit("data/d/metrics.json", swap('"length": ', '"length": 9')), "data"),
    Forgery(
        "the mode of an output changed", DATA, lambda root: (root / OUT).chmod(0o600), "", "no content: DVC tracks none but bytes and names"
    ),
    Forgery("a byte of a cache object changed", CACHE, cached(OUT, flip(0)), "cache"),
    Forgery("a cache object cut short", CACHE, cached(OUT, lambda text: text[:-1]), "cache"),
    Forgery("a cache object removed", CACHE, cached(OUT, None), "cache"),
    Forgery("a hash in a folder's listing changed", CACHE, cached(FOLDER, swap('"md5": "', '"md5": "0')), "cache"),
    Forgery("a folder's listing removed", CACHE, cached(FOLDER, None), "cache"),
    Forgery("a byte of an object of a folder's file changed", CACHE, member(flip(0)), "cache"),
    Forgery("an object of a folder's file removed", CACHE, member(None), "cache"),
    Forgery(
        "an object put into the cache",
        CACHE,
        lambda root: write(object_path(root, "0" * 32), b"x"),
        "",
        "nothing names it; `gr2 gc` removes it",
    ),
    Forgery(
        "a hash in DVC's run cache changed",
        CACHE,
        edit_run_cache,
        "",
        "read only when the stage is next asked for, and taken for an equal run then",
    ),
    Forgery("the hash of an output in dvc.lock changed", PROJECT, of_d(lambda d: d["outs"][-1].update(md5="0" * 32)), "lock"),
    Forgery("the size of an output in dvc.lock changed", PROJECT, of_d(lambda d: d["outs"][-1].update(size=7)), "lock"),
    Forgery("the number of files in dvc.lock changed", PROJECT, of_d(lambda d: d["outs"][1].update(nfiles=9)), "lock"),
    Forgery("an output taken out of an entry", PROJECT, of_d(lambda d: d["outs"].pop()), "lock"),
    Forgery("the hash of an input in dvc.lock changed", PROJECT, of_d(lambda d: d["deps"][0].update(md5="0" * 32)), "lock"),
    Forgery("the size of an input in dvc.lock changed", PROJECT, of_d(lambda d: d["deps"][0].update(size=7)), "lock"),
    Forgery("an input taken out of an entry", PROJECT, of_d(lambda d: d["deps"].pop(0)), "lock"),
    Forgery("the hash of code in dvc.lock changed", PROJECT, of_d(lambda d: d["deps"][-1].update(md5="0" * 32 + ".dir")), "lock"),
    Forgery("a parameter in dvc.lock changed", PROJECT, edit(LOCK, swap("x: 9", "x: 8")), "lock"),
    Forgery("a parameter put into dvc.lock", PROJECT, of_d(lambda d: d["params"]["params.yaml"]["d"].update(y=1)), "lock"),  # type: ignore[call-overload]
    Forgery("the command in dvc.lock changed", PROJECT, edit(LOCK, swap("stages.d", "stages.dd")), "lock"),
    Forgery("a stage's entry taken out of dvc.lock", PROJECT, entry(lambda stages: stages.pop("d")), "lock"),
    Forgery("an entry of a stage that never was", PROJECT, entry(lambda stages: stages.update(e=stages["d"])), "lock"),
    Forgery("the order of the entries in dvc.lock changed", PROJECT, reorder_lock, "", "it is as DVC would write it, and says nothing"),
    Forgery("a comment in dvc.lock", PROJECT, edit(LOCK, lambda text: b"# reviewed\n" + text), "lock"),
    Forgery("dvc.lock cut in the middle", PROJECT, edit(LOCK, lambda text: text[: len(text) // 2]), "lock"),
    Forgery("dvc.lock emptied", PROJECT, edit(LOCK, lambda text: b""), "lock"),
    Forgery("dvc.lock removed", PROJECT, remove(LOCK), "lock"),
    Forgery("dvc.lock of an earlier commit", PROJECT, git("checkout", "-q", "v1", "--", "dvc.lock"), "data"),
    Forgery("output, entry and cache object together", ALL, forge_output, "lock"),
    Forgery("the same, and a record of it in DVC's run cache", ALL, both(forge_output, forge_run_record), "lock"),
    Forgery("the same, and the stage before it run by force", ALL, both(forge_output, note_open("begun and settled")), "lock"),
    Forgery("the same, and a note that a killed run began it", ALL, both(forge_output, note_open("note alone")), "lock"),
    Forgery(
        "the same, while a killed run has left the stage open",
        ALL,
        both(note_open("begun"), forge_output, note_open("settled")),
        "",
        "it looks like what that run's DVC made after the kill",
    ),
    Forgery(
        "the same, and dvc.lock committed",
        ALL,
        both(forge_output, git("add", "dvc.lock"), git("commit", "-q", "-m", "x")),
        "",
        "a commit makes an entry known: reviews and signed commits are for that",
    ),
    Forgery("code changed after its run", CODE, edit("stages/d/words.py", swap('"d"', '"dd"')), "note", NOT_CURRENT),
    Forgery(
        "code changed after its run, size and time as before",
        CODE,
        both(verify, edit("stages/d/words.py", swap('"d"', '"D"'))),  # DVC has seen the file as it was
        "",
        "DVC takes time and size of a file in a code package for its content: the stage counts as current. `git status` may see it",
    ),
    Forgery("a parameter changed after its run", CODE, edit("params.yaml", swap("x: 9", "x: 8")), "", NOT_CURRENT),
)
