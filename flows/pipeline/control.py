"""`gr2 run --control NAME`: runs the pipeline in a clone under .gr2/controls on data without a signal, where a gain means a leak."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from flows.server.signals import stop_signals
from tasks.domain.controls import judge_control, params_under, read_control
from tasks.dvc.clone import sync_clone
from tasks.ledger.run_context import git_revision
from tasks.system.git import strip_git_env
from tasks.system.yaml_files import write_text

VERDICT = "verdict.json"


def run_control(root: Path, name: str) -> int:
    """Exit code: 0 when no gain is clear above zero, 1 when one is, else that of the pipeline's run."""
    control = read_control(root, name)
    params, changes = params_under(root, control)
    copy = root / ".gr2" / "controls" / name
    folder = copy.relative_to(root)
    print(f"control {name}: {control.purpose}")
    print(f"in {folder}, " + (f"{len(changes)} changed in params.yaml" if changes else "with params.yaml as it is"))
    (copy / VERDICT).unlink(missing_ok=True)  # a run that fails must not leave the verdict of an earlier one
    notes = sync_clone(root, copy, params, f"Control {name} of {git_revision(root)['revision']}")
    for line in (*changes, *notes):
        print(f"  {line}")
    code = _run_pipeline(copy)
    if code:
        return code
    verdict = judge_control(copy, control)
    write_text(copy / VERDICT, verdict.to_json())
    print(f"control {name}:")
    for comparison in verdict.comparisons:
        print(f"  {comparison}")
    failed = "FAILED: a gain where nothing was to be learnt; the pipeline or its evaluation leaks"
    print(f"{'passed: no gain is clear above zero' if verdict.passed else failed} ({folder / VERDICT})")
    return 0 if verdict.passed else 1


def _run_pipeline(copy: Path) -> int:
    """Runs `gr2 run` with the code of the clone `copy`. Forwards Ctrl-C, SIGTERM and SIGHUP, so that it ends its stages in good order."""
    path = os.pathsep.join(filter(None, [str(copy), os.environ.get("PYTHONPATH")]))
    environment = {**strip_git_env(os.environ), "PYTHONPATH": path}
    sys.stdout.flush()  # what was printed so far comes before the child's lines
    command = [sys.executable, "-m", "flows.cli", "run"]
    children: list[subprocess.Popen[bytes]] = []  # a list, because the handler is installed before the child exists

    def forward(number: int, frame: FrameType | None) -> None:
        if not children:
            raise KeyboardInterrupt
        children[0].send_signal(number)

    earlier = {number: signal.signal(number, forward) for number in stop_signals()}
    try:
        # Its own session: Ctrl-C on the terminal would reach it a second time, which kills.
        children.append(subprocess.Popen(command, cwd=copy, env=environment, stdin=subprocess.DEVNULL, start_new_session=True))
        code = children[0].wait()
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code  # ended by a signal: as a shell reports it
