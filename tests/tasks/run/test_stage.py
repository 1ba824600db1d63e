"""One stage through DVC: what comes of success, failure, a cache hit, a stop, and a neighbour that holds the lock."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tasks.dvc.log_parser import Callbacks
from tasks.project.graph import read_graph
from tasks.run.stage import Runner
from tasks.system.errors import Interrupted, StageFailed
from tasks.system.progress import StageProgress
from tests.support import dvc_toy


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = dvc_toy.make(tmp_path_factory.mktemp("stage") / "toy")
    dvc_toy.dvc(root, "repro")
    return root


def runner(root: Path) -> tuple[Runner, list[str]]:
    """`lines`: the stage's output, and what is said about it."""
    lines: list[str] = []

    def take(stage: str, text: str) -> None:
        lines.append(text)

    return Runner(root, Callbacks(note=take, output=take), dvc_toy.environment()), lines


def test_run_skip_and_run_cache(project: Path) -> None:
    stage = read_graph(project)["b"]
    at_work, lines = runner(project)
    assert not at_work.run(stage).ran
    dvc_toy.set_param(project, "b:\n  x: 1", "b:\n  x: 5")
    assert at_work.run(stage).ran
    assert lines == ["hello from b"]  # DVC's own words are left out
    assert (project / ".gr2/logs/b.log").read_text() == "hello from b\n"
    dvc_toy.set_param(project, "b:\n  x: 5", "b:\n  x: 1")
    assert at_work.run(stage).restored  # from the run cache
    assert (project / "data/b/out.txt").read_text() == "a1\nb1\n"


def test_failure_says_what_the_stage_said_and_keeps_outputs(project: Path) -> None:
    params = (project / "params.yaml").read_text()
    dvc_toy.set_param(project, "b:\n  x: 1", "b:\n  x: 1\n  fail: 'no rows in x.csv; give it some'")
    with pytest.raises(StageFailed) as failed:
        runner(project)[0].run(read_graph(project)["b"])
    assert str(failed.value) == "no rows in x.csv; give it some"
    (project / "params.yaml").write_text(params)
    assert (project / "data/b/out.txt").read_text() == "a1\nb1\n"
    assert (project / "data/b/model/weights.bin").exists()
    assert "up to date" in dvc_toy.dvc(project, "repro")


def test_failures_of_other_kinds(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    main = root / "stages/a/__main__.py"
    stage = read_graph(root)["a"]
    for source, message in [
        ("import warnings; warnings.warn('w'); {}['key']", "KeyError: 'key'"),
        ("print('done')", "output 'data/a/"),
        ("import os, signal; print('on it'); os.kill(os.getpid(), signal.SIGKILL)", "most likely for want of memory"),
        ("import sys; print('only on stdout'); sys.exit(3)", "only on stdout"),
        ("import sys; sys.exit(3)", "exit code 3, without a word"),
    ]:
        main.write_text(source + "\n")
        with pytest.raises(StageFailed) as failed:
            runner(root)[0].run(stage)
        assert message in str(failed.value), str(failed.value)
        assert "failed to reproduce" not in str(failed.value)
    (root / "stages/__init__.py").unlink()  # a dep that is a file; one missing from a folder dep is the stage's own ImportError
    with pytest.raises(StageFailed, match=r"stages/__init__\.py"):
        runner(root)[0].run(stage)


def test_progress_and_notes_are_told_from_other_output(tmp_path: Path) -> None:
    """Progress as lines of ours and as a library's bar; a bar's line of another kind; a note; the log has all but quick repetitions."""
    root = dvc_toy.make(tmp_path / "toy")
    (root / "stages/a/__main__.py").write_text(
        "import os, sys, time\nassert os.environ['GR2_PROGRESS'] == 'lines'\n"
        "for i in range(4):\n    sys.stderr.write(f'\\r{i} of 5'); sys.stderr.flush(); time.sleep(0.05)\n"
        "sys.stderr.write('\\n::progress 1/2 reading\\n')\n"
        "sys.stderr.write('train:  50%|###  | 3/6 [00:01<00:01, 2it/s]\\rtrain: 100%|#####| 6/6 [00:02<00:00, 2it/s]\\n')\n"
        "sys.stderr.write('::note a newer version is there\\n{\\'loss\\': 1}\\n'); sys.exit('a: broken')\n"
    )
    notes: list[str] = []
    progress: list[StageProgress] = []
    output: list[str] = []
    callbacks = Callbacks(
        note=lambda stage, text: notes.append(text),
        progress=lambda stage, latest: progress.append(latest),
        output=lambda stage, text: output.append(text),
    )
    with pytest.raises(StageFailed, match="broken"):
        Runner(root, callbacks, dvc_toy.environment()).run(read_graph(root)["a"])
    assert progress == [StageProgress(1, 2, "reading"), StageProgress(3, 6, "train"), StageProgress(6, 6, "train")]
    assert notes == ["a newer version is there"]
    assert output == ["0 of 5", "3 of 5", "a newer version is there", "{'loss': 1}", "a: broken"]
    assert (root / ".gr2/logs/a.log").read_text().splitlines() == output


def test_stop_ends_the_stage_and_brings_outputs_back(project: Path) -> None:
    params = (project / "params.yaml").read_text()
    dvc_toy.set_param(project, "c:\n  x: 1", "c:\n  x: 7\n  sleep: 36000")  # longer than a test may take
    at_work, lines = runner(project)
    threading.Thread(target=lambda: (_until(lambda: "hello from c" in lines), at_work.stop())).start()
    with pytest.raises(Interrupted):
        at_work.run(read_graph(project)["c"])
    (project / "params.yaml").write_text(params)
    assert (project / "data/c/out.txt").read_text() == "a1\nc1\n"
    with pytest.raises(Interrupted):
        at_work.run(read_graph(project)["c"])  # a stopped runner takes nothing more


def test_waits_for_another_dvc_at_the_same_stage(project: Path) -> None:
    dvc_toy.set_param(project, "c:\n  x: 1", "c:\n  x: 9")
    hold = project / "hold"
    hold.touch()  # the other is at work until this one is seen to wait
    other = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "-s", "c"], cwd=project, stdout=subprocess.PIPE, text=True, env=dvc_toy.environment()
    )
    assert other.stdout
    while "hello from c" not in other.stdout.readline():
        pass
    at_work, lines = runner(project)

    def waits() -> bool:
        return any("another DVC process holds its files" in line for line in lines)

    threading.Thread(target=lambda: (_until(waits), hold.unlink())).start()
    assert not at_work.run(read_graph(project)["c"]).ran  # the other had made it by then
    assert waits() and other.wait() == 0


def test_stages_side_by_side_commit_both(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    graph = read_graph(root)
    at_work, _ = runner(root)
    at_work.run(graph["a"])
    threads = [threading.Thread(target=at_work.run, args=(graph[name],)) for name in ("b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at_work.run(graph["d"])
    assert "up to date" in dvc_toy.dvc(root, "repro")


def _until(condition: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_stage_deaf_to_sigterm_is_killed(tmp_path: Path) -> None:
    root = dvc_toy.make(tmp_path / "toy")
    (root / "stages/a/__main__.py").write_text(
        "import os, signal, time, pathlib\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path('pid').write_text(str(os.getpid()))\nprint('deaf')\ntime.sleep(36000)\n"
    )
    at_work, lines = runner(root)
    threading.Thread(target=lambda: (_until(lambda: "deaf" in lines), at_work.stop())).start()
    with pytest.raises(Interrupted):
        at_work.run(read_graph(root)["a"])
    pid = int((root / "pid").read_text())
    _until(lambda: not psutil.pid_exists(pid))
    assert not psutil.pid_exists(pid)


def test_a_stage_whose_dvc_was_killed_is_ended_by_the_next_run(tmp_path: Path) -> None:
    """Else it would write, beside the next run's stage, what nobody records."""
    root = dvc_toy.make(tmp_path / "toy", "a: {x: 1, sleep: 36000}\nb: {x: 1}\nc: {x: 1}\nd: {x: 1}\n")
    code = "from tasks.project.graph import read_graph; from tasks.run.stage import Runner; Runner(ROOT).run(read_graph(ROOT)['a'])"
    whole = f"from pathlib import Path; ROOT = Path({str(root)!r}); {code}"
    owner = subprocess.Popen([sys.executable, "-c", whole], env={**dvc_toy.environment(), "PYTHONPATH": str(dvc_toy.ROOT)})
    left: list[psutil.Process] = []

    def stages() -> bool:
        left[:] = [own for own in psutil.Process(owner.pid).children(recursive=True) if own.cmdline()[1:3] == ["-m", "stages.a"]]
        return bool(left)

    _until(stages)
    for process in psutil.Process(owner.pid).children(recursive=True):
        if process not in left:
            process.kill()
    owner.kill()
    owner.wait()
    assert left[0].is_running()
    (root / "params.yaml").write_text(dvc_toy.PARAMS)
    at_work, lines = runner(root)
    assert at_work.run(read_graph(root)["a"]).ran
    assert (lines[0], lines[-1]) == ("a killed run has left it at work; ended", "hello from a")  # DVC warns between
    assert not left[0].is_running()
