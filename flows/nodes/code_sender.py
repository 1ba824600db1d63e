"""Sends the code of a run to where its nodes fetch it, and says what they do not get."""

import threading
from collections.abc import Callable
from pathlib import Path

from tasks.nodes.snapshot import Snapshot, drop, left_out_line, push_code_snapshot
from tasks.project.graph import Graph, Stage


class CodeSender:
    """Safe to share between threads. `remote`: the git remote. `line`: prints a line of a stage."""

    def __init__(self, root: Path, graph: Graph, run: str, remote: str, note: Callable[[str, str], None]):
        self.root, self.graph, self.run, self.remote, self.note = root, graph, run, remote, note
        self._lock = threading.Lock()  # one snapshot at a time: stages are submitted from several threads
        self._reported: set[str] = set()

    def send(self, stage: Stage) -> Snapshot:
        """Pushes the code for `stage`. What nodes do not get is said in one line, each name once a run."""
        deps = [dep for dep in stage.deps if not self.graph.makes(dep)]
        with self._lock:
            code = push_code_snapshot(self.root, self.run, stage.name, self.remote, deps)
            unreported = [name for name in code.left_out if name not in self._reported]
            self._reported.update(unreported)
        if unreported:
            self.note(stage.name, left_out_line(unreported))
        return code

    def drop(self) -> None:
        drop(self.root, self.run, self.remote)
