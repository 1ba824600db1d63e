"""Forgeries of the lineage record, and of what vouches for it."""

from forgery_kinds import GIT, GR2, Forgery, append_event, both, edit, flip, git, lines, remove, swap, swap_words
from forgery_project import recommit_record, rewrite_record, without_remote, write

from tasks.ledger.anchor import REF
from tasks.ledger.lines import EVENTS, HEAD, TRUNCATED

RECORD = (
    Forgery("a byte of an event changed", GR2, swap_words, "record"),
    Forgery("a space put into an event", GR2, edit(EVENTS, swap('"host": "', '"host":  "')), "record"),
    Forgery("an event replaced by other words", GR2, edit(EVENTS, lines(lambda own: [*own[:3], b"nothing\n", *own[4:]])), "record"),
    Forgery("the first event removed", GR2, edit(EVENTS, lines(lambda own: own[1:])), "record"),
    Forgery("an event in the middle removed", GR2, edit(EVENTS, lines(lambda own: [*own[:5], *own[6:]])), "record"),
    Forgery("the last event removed", GR2, edit(EVENTS, lines(lambda own: own[:-1])), "record"),
    Forgery("two events swapped", GR2, edit(EVENTS, lines(lambda own: [*own[:3], own[4], own[3], *own[5:]])), "record"),
    Forgery("an event written twice", GR2, edit(EVENTS, lines(lambda own: [*own, own[-1]])), "record"),
    Forgery(
        "an event put in without its place in the chain",
        GR2,
        edit(EVENTS, lambda text: text + b'{"run": {"runId": "x"}, "job": {"name": "d"}}\n'),
        "record",
    ),
    Forgery("a well-formed event appended, with its head", GR2, append_event, "record"),
    Forgery("head.json removed", GR2, remove(HEAD), "record"),
    Forgery("head.json changed", GR2, edit(HEAD, flip(12)), "record"),
    Forgery("all of the record removed", GR2, remove(EVENTS.parent), "record"),
    Forgery("an event changed, the chain and head.json made anew", GR2, rewrite_record, "record"),
    Forgery("the last run cut off, head.json as it was then", GR2, lambda root: rewrite_record(root, keep=-3), "record"),
    Forgery(
        "what a crash had cut off changed",
        GR2,
        lambda root: write(root / TRUNCATED, b"x"),
        "",
        "set aside, and part of nothing; its hash is in the event that says so",
    ),
    Forgery("the git ref removed", GIT, git("update-ref", "-d", REF), "record"),
    Forgery("the git ref moved back", GIT, git("update-ref", REF, f"{REF}~2"), "record"),
    Forgery("the git ref set to another commit", GIT, git("update-ref", REF, "HEAD"), "record"),
    Forgery("record, head.json and a ref begun anew", GIT, both(rewrite_record, lambda root: recommit_record(root, chain=False)), "record"),
    Forgery("record, head.json and the whole chain of the ref", GIT, both(rewrite_record, recommit_record), "record"),
    Forgery("the same, and the remote taken out of git's settings", GIT, both(rewrite_record, recommit_record, without_remote), "record"),
    Forgery(
        "the same, and the tags of promotions removed",
        GIT,
        both(rewrite_record, recommit_record, without_remote, git("tag", "-d", "promoted/one")),
        "note",
        "nothing outside vouches for the record any more; only a note says so. Compare with the remote from another clone",
    ),
    Forgery(
        "the whole chain, and the remote's ref by force",
        "also writes the remote",
        both(rewrite_record, recommit_record, git("push", "-q", "-f", "origin", REF)),
        "record",
    ),
    Forgery("record and ref removed", GIT, both(remove(EVENTS.parent), git("update-ref", "-d", REF)), "lock"),
    Forgery(
        "record and ref removed, dvc.lock committed",
        GIT,
        both(remove(EVENTS.parent), git("update-ref", "-d", REF), git("add", "dvc.lock"), git("commit", "-q", "-m", "x")),
        "note",
        "without a record nothing is forged in it; the note names the remote's ref of a record that is not here",
    ),
    Forgery(
        "the tag of a promotion moved to another commit",
        GIT,
        git("tag", "-f", "promoted/one", "v1"),
        "",
        "tags are git's: sign them, and protect them on the remote",
    ),
)
