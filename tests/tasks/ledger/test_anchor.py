"""What vouches for the record outside of its own files: git's ref as a chain of commits, the remote's ref, the tags of promotions."""

import json
import shutil
from pathlib import Path

import pytest

from tasks.ledger.anchor import REF, anchors, promoted_heads, promotion_trailer
from tasks.ledger.events import close_run
from tasks.ledger.facets import new_id, run_event
from tasks.ledger.lines import EVENTS, HEAD, read_events
from tasks.ledger.log import adopt, append
from tasks.ledger.run_context import RunContext
from tasks.ledger.verify import check
from tests.support.dvc_toy import call
from tests.support.lineage_toy import rechained


def made(root: Path, name: str = "a") -> None:
    append(root, run_event("COMPLETE", new_id(), name, {"gr2_run": {"restored": "cache"}})[1])


def run(root: Path) -> None:
    made(root)
    close_run(root, RunContext({"revision": None, "dirty": None}), "Completed", ["a"])


def faults(root: Path) -> list[str]:
    return [f"{fault.where} {fault.what}" for fault in check(root).faults]


def rewrite(root: Path, change: str, by: str) -> None:
    """As one does who can write everything here: other words, and the chain, the head and the ref made anew behind them."""
    events = [json.loads(line) for line in (root / EVENTS).read_text().replace(change, by).splitlines()]
    text, head = rechained(events)
    (root / EVENTS).write_bytes(text)
    (root / HEAD).write_text(head.text)
    blob = root.parent / "head"
    blob.write_text(head.text)
    tree = f"100644 blob {call(root, 'git', 'hash-object', '-w', str(blob)).stdout.strip()}\thead.json\n"
    (root.parent / "tree").write_text(tree)
    made_tree = call(root, "sh", "-c", f"git mktree < {root.parent / 'tree'}").stdout.strip()
    commit = call(root, "git", "-c", "user.name=x", "-c", "user.email=x@x", "commit-tree", "-m", "x", made_tree).stdout.strip()
    call(root, "git", "update-ref", REF, commit)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs on record, in git, with a remote that has the ref after the second."""
    root = tmp_path / "project"
    root.mkdir()
    call(root, "git", "init", "-q")
    call(tmp_path, "git", "init", "-q", "--bare", "remote")
    call(root, "git", "remote", "add", "origin", str(tmp_path / "remote"))
    run(root)
    run(root)
    call(root, "git", "push", "-q", "origin", REF)
    run(root)
    assert not faults(root)
    return root


def test_each_run_adds_a_commit_that_can_be_pushed(root: Path) -> None:
    chain = anchors(root)
    assert len(chain) == 4  # the first run makes two: its closing event names the one before
    assert [anchor.head.index for anchor in chain if anchor.head] == [5, 3, 1, 0]
    call(root, "git", "push", "-q", "origin", REF)
    call(root, "git", "update-ref", REF, chain[1].commit)
    run(root)
    assert call(root, "git", "push", "-q", "origin", REF, ok=False).returncode, "no head that was pushed is ever taken back"


def test_signed_where_git_is_set_up_to_sign(root: Path, tmp_path: Path) -> None:
    call(tmp_path, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key"))
    for name, value in (("gpg.format", "ssh"), ("user.signingkey", str(tmp_path / "key.pub"))):
        call(root, "git", "config", name, value)
    run(root)
    assert "gpgsig -----BEGIN SSH SIGNATURE" in call(root, "git", "cat-file", "commit", REF).stdout
    call(root, "git", "config", "user.signingkey", str(tmp_path / "lost.pub"))
    run(root)
    assert not faults(root), "a key that is gone leaves an anchor without signature"


def test_a_ref_removed_moved_back_or_begun_anew(root: Path) -> None:
    chain = anchors(root)
    call(root, "git", "update-ref", "-d", REF)
    assert f"{REF} is missing, though the record had it: it was removed, or begun anew" in faults(root)
    call(root, "git", "update-ref", REF, chain[-1].commit)
    assert any(f"{REF} does not hold {chain[1].commit[:12]}" in fault for fault in faults(root))
    call(root, "git", "update-ref", "-d", REF)
    run(root)  # a run goes on with a ref begun anew, and hides nothing
    assert any("does not hold" in fault for fault in faults(root))


def test_events_put_in_behind_the_last_run(root: Path) -> None:
    """A well-formed event, with its head, is none that a run anchored; the next run says for good that it took it in."""
    made(root, "forged")
    assert faults(root) == [f"{EVENTS} 1 of its last events are in no anchor: of a run that was killed, or put in"]
    adopt(root)
    run(root)
    assert not faults(root)
    notes = [event["run"]["facets"].get("gr2_note", {}).get("kind") for event in read_events(root)]
    assert notes.count("late") == 1


def test_all_rewritten_together_is_known_to_the_remote(root: Path) -> None:
    rewrite(root, '"restored": "cache"', '"restored": "forged"')
    said = faults(root)
    assert any(fault.startswith(f"origin {REF} is at ") for fault in said) and any("does not hold" in fault for fault in said)
    shutil.rmtree(root.parent / "remote")
    assert "no remote, or none that answers" in "".join(check(root).notes)


def test_the_remote_is_said_to_lack_it(root: Path) -> None:
    call(root.parent, "git", "-C", "remote", "update-ref", "-d", REF)
    assert check(root).notes == [f"the record: origin does not vouch for it yet; git push origin {REF}"]


def test_promotions_carry_the_head(root: Path) -> None:
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    call(root, "git", *name, "commit", "-q", "--allow-empty", "-m", "x")
    call(root, "git", *name, "tag", "-a", "-m", "The first", "-m", promotion_trailer(root), "promoted/one")
    ((tag, head, _),) = promoted_heads(root)
    assert tag == "promoted/one" and head.index == 5 and not faults(root)
    run(root)
    assert not faults(root)
    whole = (root / EVENTS).read_bytes()
    first = whole.index(b"\n") + 1
    (root / EVENTS).write_bytes(whole[:first] + whole[first:].replace(b'"cache"', b'"other"'))
    assert any("its event 6 is not the one that the tag promoted/one knows" in fault for fault in faults(root)) or any(
        "hash does not fit" in fault for fault in faults(root)
    )
    shutil.rmtree(root / EVENTS.parent)
    run(root)
    assert any("not the one that promoted/one was promoted with" in note for note in check(root).notes)


def test_the_blob_of_earlier_releases_becomes_a_chain(root: Path) -> None:
    text = anchors(root)[0].head
    assert text
    (root / "old").write_text(text.text)
    call(root, "git", "update-ref", REF, call(root, "git", "hash-object", "-w", "old").stdout.strip())
    assert anchors(root)[0].head == text
    run(root)
    assert anchors(root)[0].head != text and call(root, "git", "cat-file", "-t", REF).stdout == "commit\n"
