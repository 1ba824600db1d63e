"""The lineage record against what was kept of it elsewhere: git's ref with all its heads, the remote's, and the tags of promotions."""

from pathlib import Path

from tasks.ledger.anchor import anchors, promoted_heads, ref_name, remote_target
from tasks.ledger.lines import EVENTS, Event, Head, chain_link
from tasks.system.locks import LOCK, file_lock

Ends = list[tuple[str, int]]  # per line of the record: its hash ("" where it has none) and the length of the file up to its end
Fault = tuple[str, str, str]  # where, what, remedy


def check_anchors(root: Path, events: list[Event], ends: Ends) -> tuple[list[Fault], list[str]]:
    """What does not fit, and notes on who vouches for the record."""
    name = ref_name(root)
    if name is None:
        return [], ["the record: outside of git, so that only its own files vouch for it"] if events else []
    chain = anchors(root, name)
    faults: list[Fault] = []
    remedy = f"git log {name} shows its heads; bring the record back from a backup, or move it away and begin a new one"
    for number, anchor in enumerate(chain):
        where = name if number == 0 else f"{name}~{number}"
        if anchor.head is None:
            faults.append((where, "is no head of a lineage record", f"remove it: git update-ref -d {name}"))
        elif what := contradiction(where, anchor.head, ends):
            faults.append((str(EVENTS), what, remedy))
        if faults:
            break  # the older ones say the same
    if not faults and chain and chain[0].head and (late_count := count_unanchored(events, chain[0].head)) and not _at_work(root):
        what = f"{late_count} of its last events are in no anchor: of a run that was killed, or put in"
        faults.append((str(EVENTS), what, "gr2 run takes them in, and notes that"))
    commits = [anchor.commit for anchor in chain]
    for ref, recorded_commits in _recorded_commits(events).items():
        held_commits = commits if ref == name else [anchor.commit for anchor in anchors(root, ref)]
        if lost_commits := [commit for commit in recorded_commits if commit not in held_commits]:
            what = (
                f"does not hold {lost_commits[-1][:12]}, to which the record says that it pointed"
                if held_commits
                else "is missing, though the record had it"
            )
            bring_back = f"git update-ref {ref} {lost_commits[-1]}, while git still has that commit; or git fetch REMOTE {ref}:{ref}"
            faults.append((ref, f"{what}: it was removed, or begun anew", bring_back))
    remote_faults, notes = _remote(root, name, commits, bool(events))
    promotion_faults, promotion_notes = _promotions(root, ends)
    return [*faults, *remote_faults, *promotion_faults], [*notes, *promotion_notes]


def count_unanchored(events: list[Event], head: Head) -> int:
    """How many events behind `head` tell of a run. Notes of the record about itself say nothing of what was made."""
    tail = [event for event in events if int((chain_link(event) or {}).get("index", -1)) > head.index]
    return sum(event["job"]["name"] != "ledger" for event in tail)


def _at_work(root: Path) -> bool:
    """Whether a run holds the checkout: it anchors its events when it ends."""
    if not (root / LOCK).exists():
        return False
    with file_lock(root / LOCK) as free:
        return not free


def contradiction(where: str, head: Head, ends: Ends) -> str:
    """How the head that `where` kept and the record contradict each other; empty where they do not."""
    if head.index >= len(ends):
        return f"ends at event {len(ends)}; {where} knows event {head.index + 1}: the last ones were removed"
    if head.index < 0 or ends[head.index] != (head.hash, head.bytes):
        return f"its event {head.index + 1} is not the one that {where} knows: one of the two was changed"
    return ""


def _recorded_commits(events: list[Event]) -> dict[str, list[str]]:
    """By ref, the commits that it pointed to when a run ended, as the closing events say. The name changes with git's gr2.record."""
    commits_by_ref: dict[str, list[str]] = {}
    for event in events:
        facts = event["run"]["facets"].get("gr2_anchor")
        if isinstance(facts, dict) and facts.get("ref") and facts.get("prior"):
            commits_by_ref.setdefault(str(facts["ref"]), []).append(str(facts["prior"]))
    return commits_by_ref


def _remote(root: Path, name: str, commits: list[str], recorded: bool) -> tuple[list[Fault], list[str]]:
    answer = remote_target(root, name)
    if answer is None:
        return [], ["the record: no remote, or none that answers, vouches for it"] if recorded else []
    remote, commit = answer
    if commit in commits or not (commit or recorded):
        return [], []
    if not commit:
        return [], [f"the record: {remote} does not vouch for it yet; git push {remote} {name}"]
    # A fresh clone: no record yet, and so none that could differ.
    if not recorded and not commits:
        return [], [f"the record: {remote} has {name}, of a record that is not here"]
    what = f"is at {commit[:12]}, which {name} does not hold here: the record was rewritten here, or another checkout pushed its own"
    remedy = f"git fetch {remote} {name} and git log FETCH_HEAD show its heads; for a ref of one's own: git config gr2.record NAME"
    return [(f"{remote} {name}", what, remedy)], []


def _promotions(root: Path, ends: Ends) -> tuple[list[Fault], list[str]]:
    # A tag of another checkout's record says nothing of this one, so it must not count as a contradiction.
    first = next((hash_ for hash_, _ in ends if hash_), "")
    faults: list[Fault] = []
    others = []
    for tag, head, record in promoted_heads(root):
        if record != first:
            others.append(tag)
        elif what := contradiction(f"the tag {tag}", head, ends):
            faults.append((str(EVENTS), what, f"git show {tag}; bring the record back from a backup"))
    notes = [
        f"the record: not the one that {', '.join(others)} was promoted with; another checkout's, or rewritten from its first event on"
    ]
    return faults, notes if others and ends else []
