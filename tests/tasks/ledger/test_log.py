"""The record's chain: any byte changed, any line gone or put in is found; crashes are mended; processes do not break it."""

import json
import multiprocessing
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.ledger.facets import note_event
from tasks.ledger.lines import EVENTS, HEAD, TRUNCATED, Head, read_events
from tasks.ledger.log import anchor, append
from tasks.ledger.verify import check


def event(number: int) -> dict[str, object]:
    return note_event({"kind": "test", "number": number, "text": "naïve \u2028 text", "nothing": None, "share": 0.1})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of eight events in a git repository, anchored."""
    root = tmp_path_factory.mktemp("ledger")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for number in range(8):
        append(root, event(number))
    anchor(root)
    assert check(root).faults == [] and len(check(root).events) == 8
    return root


@pytest.fixture
def files(written: Path) -> tuple[Path, bytes, bytes]:
    """The record's files, put back as they were before each test."""
    whole, head = getattr(test_any_changed_byte_is_found, "kept", None) or (
        (written / EVENTS).read_bytes(),
        (written / HEAD).read_bytes(),
    )
    test_any_changed_byte_is_found.kept = (whole, head)  # type: ignore[attr-defined]
    (written / EVENTS).write_bytes(whole)
    (written / HEAD).write_bytes(head)
    return written, whole, head


def test_any_changed_byte_is_found(files: tuple[Path, bytes, bytes]) -> None:
    """Every position of the first, a middle and the last line would take long; a seeded draw, and both ends of every line."""
    root, whole, _ = files
    ends = [position for position, byte in enumerate(whole) if byte == 10]
    draw = random.Random(3)
    positions = {0, 1, *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1]), *draw.sample(range(len(whole)), 200)}
    for position in sorted(positions):
        changed = bytearray(whole)
        changed[position] = draw.choice([byte for byte in (*b' 0a"}\n', whole[position] ^ 1) if byte != whole[position]])
        (root / EVENTS).write_bytes(changed)
        assert check(root).faults, f"byte {position}: {whole[position]} -> {changed[position]}"


def test_a_byte_put_in_or_taken_out_is_found(files: tuple[Path, bytes, bytes]) -> None:
    root, whole, _ = files
    draw = random.Random(4)
    for position in draw.sample(range(len(whole)), 80):
        for changed in (whole[:position] + whole[position + 1 :], whole[:position] + b" " + whole[position:]):
            (root / EVENTS).write_bytes(changed)
            assert check(root).faults, position


@pytest.mark.parametrize("gone", [0, 3, 7])
def test_a_removed_line_is_found(files: tuple[Path, bytes, bytes], gone: int) -> None:
    root, whole, _ = files
    lines = whole.splitlines(keepends=True)
    (root / EVENTS).write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
    assert check(root).faults


def test_swapped_doubled_and_replayed_lines_are_found(files: tuple[Path, bytes, bytes]) -> None:
    root, whole, _ = files
    lines = whole.splitlines(keepends=True)
    for forged in (
        [lines[1], lines[0], *lines[2:]],
        [*lines[:4], lines[3], *lines[4:]],
        [*lines, lines[7]],
        [*lines[:3], lines[6], *lines[3:]],
    ):
        (root / EVENTS).write_bytes(b"".join(forged))
        assert check(root).faults


def test_any_changed_byte_of_the_head_is_found(files: tuple[Path, bytes, bytes]) -> None:
    root, _, head = files
    for position in range(len(head)):
        for byte in (32, 48, 97):
            if byte != head[position]:
                (root / HEAD).write_bytes(head[:position] + bytes([byte]) + head[position + 1 :])
                assert check(root).faults, position
    (root / HEAD).unlink()
    assert any(fault.where == str(HEAD) and "missing" in fault.what for fault in check(root).faults)


def test_a_tail_cut_with_its_head_is_known_to_git(files: tuple[Path, bytes, bytes]) -> None:
    """The forger also writes the head.json that the shorter record would have had."""
    root, whole, _ = files
    lines = whole.splitlines(keepends=True)
    short = b"".join(lines[:6])
    last = json.loads(lines[5])["run"]["facets"]["gr2_chain"]
    (root / EVENTS).write_bytes(short)
    (root / HEAD).write_text(Head(5, last["hash"], len(short)).text)
    assert [fault.what for fault in check(root).faults if "refs/gr2/lineage" in fault.what]


def test_a_loss_stays_noted_after_later_events(tmp_path: Path) -> None:
    for number in range(5):
        append(tmp_path, event(number))
    lines = (tmp_path / EVENTS).read_bytes().splitlines(keepends=True)
    (tmp_path / EVENTS).write_bytes(b"".join(lines[:3]))
    append(tmp_path, event(5))
    append(tmp_path, event(6))
    assert [fault.what for fault in check(tmp_path).faults] == [check(tmp_path).faults[0].what]
    assert "knew an event 5" in check(tmp_path).faults[0].what


def test_a_torn_line_is_set_aside_and_no_whole_one_is_lost(tmp_path: Path) -> None:
    for number in range(3):
        append(tmp_path, event(number))
    whole = (tmp_path / EVENTS).read_bytes()
    for cut in (1, 40, 300):
        (tmp_path / EVENTS).write_bytes(whole + whole[:cut])
        assert "cut off" in check(tmp_path).faults[-1].what
        append(tmp_path, event(9))
        assert check(tmp_path).faults == [] and len(check(tmp_path).events) == 5
        assert (tmp_path / EVENTS).read_bytes().startswith(whole) and whole[:cut] in (tmp_path / TRUNCATED).read_bytes()
        (tmp_path / EVENTS).write_bytes(whole)
        (tmp_path / HEAD).write_text(Head(2, json.loads(whole.splitlines()[-1])["run"]["facets"]["gr2_chain"]["hash"], len(whole)).text)


def test_only_the_newline_was_lost(tmp_path: Path) -> None:
    for number in range(3):
        append(tmp_path, event(number))
    whole = (tmp_path / EVENTS).read_bytes()
    (tmp_path / EVENTS).write_bytes(whole[:-1])
    append(tmp_path, event(3))
    assert check(tmp_path).faults == [] and (tmp_path / EVENTS).read_bytes().startswith(whole) and not (tmp_path / TRUNCATED).exists()


def test_killed_between_the_event_and_its_head(tmp_path: Path) -> None:
    append(tmp_path, event(0))
    head = (tmp_path / HEAD).read_bytes()
    append(tmp_path, event(1))
    (tmp_path / HEAD).write_bytes(head)
    assert "stops at event 1 of 2" in check(tmp_path).faults[0].what
    append(tmp_path, event(2))
    assert check(tmp_path).faults == [] and len(read_events(tmp_path)) == 4


def test_events_from_before_the_chain_are_covered_by_it(tmp_path: Path) -> None:
    (tmp_path / EVENTS).parent.mkdir(parents=True)
    old = b'{"eventType": "START", "job": {"name": "a"}, "run": {"runId": "1"}}\n{"eventType": "COMPLETE"}\n'
    (tmp_path / EVENTS).write_bytes(old)
    assert check(tmp_path).faults == []
    append(tmp_path, event(0))
    append(tmp_path, event(1))
    found = check(tmp_path)
    assert (found.before, found.faults) == (2, [])
    whole = (tmp_path / EVENTS).read_bytes()
    for position in range(len(old)):
        changed = bytearray(whole)
        changed[position] ^= 1
        (tmp_path / EVENTS).write_bytes(changed)
        assert check(tmp_path).faults, position


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """The kernel refuses to let the file grow: a limit on the size of files acts as a full disk."""
    for number in range(3):
        append(tmp_path, event(number))
    whole = (tmp_path / EVENTS).read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path; from tasks.ledger.facets import note_event\n"
        "from tasks.ledger.log import append\n"
        "event = note_event({'number': 3})\n"
        f"signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, ({len(whole) + 100},) * 2)\n"
        "append(Path(sys.argv[1]), event)\n"
    )
    root = Path(__file__).resolve().parents[3]
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False)
    assert "could not be recorded" in result.stderr and (tmp_path / EVENTS).read_bytes() == whole
    append(tmp_path, event(4))
    assert check(tmp_path).faults == []


def _write_many(root: Path, first: int) -> None:
    for number in range(first, first + 15):
        append(root, event(number))


def test_processes_side_by_side_keep_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_many, args=(tmp_path, 100 * number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(600)
    numbers = [one["run"]["facets"]["gr2_note"]["number"] for one in read_events(tmp_path)]
    assert check(tmp_path).faults == [] and len(numbers) == len(set(numbers)) == 45
    for first in (0, 100, 200):
        assert [number for number in numbers if first <= number < first + 100] == list(range(first, first + 15))


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """kill -9 in the middle of writing, several times over: what was whole stays whole, and the chain goes on."""
    context = multiprocessing.get_context("fork")
    draw = random.Random(5)
    for _ in range(6):
        before = (tmp_path / EVENTS).read_bytes() if (tmp_path / EVENTS).exists() else b""
        worker = context.Process(target=_write_many, args=(tmp_path, 0))
        worker.start()
        worker.join(draw.uniform(0.01, 0.08))
        worker.kill()
        worker.join()
        append(tmp_path, event(-1))
        assert check(tmp_path).faults == [] and (tmp_path / EVENTS).read_bytes().startswith(before)
