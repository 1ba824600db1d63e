"""Parameters are checked whole before a run changes or starts anything: a misspelt key of the last stage is not found out after hours."""

import hashlib
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tasks.project.code_deps import code_files, gaps
from tasks.project.graph import Graph, read_graph
from tasks.project.overrides import PARAMS
from tasks.project.params_check import check_sections, tool_command
from tasks.system.errors import ProjectError
from tasks.system.yaml_files import read_text, write_text

CHECKED = Path(".gr2") / "params_checked"  # digest of the parameters, dvc.yaml and the stages' code that were last found valid
CODE_CHECKED = Path(".gr2") / "code_checked"  # the same without the parameters


def check_params(root: Path, texts: Sequence[str | None] = (None,)) -> Graph:
    """ProjectError, with a line a fault, for what the stages would refuse, or what contradicts itself between them.

    `texts`: each what params.yaml is about to have; None: what it has. Returns the graph under the first of them.
    """
    graphs = [read_graph(root, text) for text in texts]
    for graph, text in zip(graphs, texts, strict=True):
        check_sections(root, graph, text)
    if (root / PARAMS).exists() or None not in texts:
        _check_keys(root, graphs[0], [read_text(root / PARAMS, "") if text is None else text for text in texts])
    return graphs[0]


def _check_keys(root: Path, graph: Graph, texts: Sequence[str]) -> None:
    """Asks the project's tool, which loads the stages' libraries and so takes seconds: once for the same parameters."""
    digest, record = _digest(root, graph, texts), root / CHECKED
    if record.exists() and record.read_text(encoding="utf-8") == digest:
        return
    check_code_deps(root, graph)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{place}.yaml" for place in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text(text, encoding="utf-8")
        if (command := tool_command(root, files)) is None:
            return
        tool = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if tool.returncode == 1 and tool.stdout.strip():
        raise ProjectError(tool.stdout.strip())
    if tool.returncode:
        reason = (tool.stderr.strip().splitlines() or [f"exit code {tool.returncode}"])[-1]
        raise ProjectError(f"{PARAMS} could not be checked: {reason} (python -m stages.tools.check_params {PARAMS} shows all)")
    record.parent.mkdir(exist_ok=True)
    write_text(record, digest)


def check_code_deps(root: Path, graph: Graph) -> None:
    """ProjectError for code that a stage imports and dvc.yaml does not list: after this run edits of it would rerun nothing.

    Reading all imports takes most of a second, so once for the same code.
    """
    digest, record = _digest(root, graph), root / CODE_CHECKED
    if record.exists() and record.read_text(encoding="utf-8") == digest:
        return
    lines = [
        f"dvc.yaml: stages.{name}.deps: {', '.join(gap.missing_packages)} is imported and not listed; add it as a path (gr2 deps says more)"
        for name, gap in gaps(root, graph).items()
        if gap.missing
    ]
    if lines:
        raise ProjectError("\n".join(lines))
    with suppress(OSError):  # a plan may be made of a project that cannot be written to
        record.parent.mkdir(exist_ok=True)
        write_text(record, digest)


def _digest(root: Path, graph: Graph, texts: Sequence[str] = ()) -> str:
    digest = hashlib.sha256("\0".join(texts).encode())
    digest.update((root / "dvc.yaml").read_bytes())  # the code deps are checked against it
    for path in code_files(root, graph):
        state = path.stat()
        digest.update(f"{path.relative_to(root)} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()
