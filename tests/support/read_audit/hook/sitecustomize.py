"""Python imports this at its start when its folder is on PYTHONPATH. In a stage, and in what a stage starts, it records each read.

Python's own `open`, os.open and all that is built on them raise the audit event `open`. Polars and safetensors read in native code, which
raises none: their functions are wrapped. Not seen: tokenizers (its file is in a model folder beside config.json, which is seen), PyArrow's
ParquetFile and LightGBM's model files (raw files and a retriever of the same run), and processes that are not Python.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

PROJECT = os.environ.get("READ_AUDIT_PROJECT", "")
STAGE = "READ_AUDIT_STAGE"
# Module -> functions whose first argument is what they read.
WRAPPED = {
    "polars": ("read_parquet", "scan_parquet", "read_parquet_schema", "read_csv", "scan_csv", "read_ndjson", "scan_ndjson"),
    "safetensors": ("safe_open",),
    "stages.shared.core.params": ("load_params",),
}


def stage_of(arguments: list[str]) -> str:
    """The stage that `python -m stages.NAME` runs; empty for another command."""
    names = [re.fullmatch(r"stages\.(\w+)", word) for before, word in zip(arguments, arguments[1:], strict=False) if before == "-m"]
    return next((match[1] for match in names if match), "")


class Recorder:
    """Writes a line a read: ["file", path in the project] or ["section", name]."""

    def __init__(self, stage: str) -> None:
        path = os.path.join(os.environ["READ_AUDIT_FOLDER"], f"{stage}.{os.getpid()}.jsonl")
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.seen: set[tuple[str, str]] = set()
        self.in_load_params = False

    def add(self, kind: str, name: str) -> None:
        if (kind, name) not in self.seen:
            self.seen.add((kind, name))
            os.write(self.descriptor, (json.dumps([kind, name]) + "\n").encode())

    def file(self, path: Any) -> None:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, (str, os.PathLike)):
            return  # a file descriptor or a buffer
        full = os.path.normpath(os.path.join(os.getcwd(), os.fspath(path)))
        name = os.path.relpath(full, PROJECT)
        if full.startswith(PROJECT + os.sep) and not (name == "params.yaml" and self.in_load_params):
            self.add("file", name)

    def event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY
            if not writes and not (isinstance(mode, str) and mode.strip("bt") in ("w", "x", "a")):
                self.file(path)

    def wrap(self, module: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(first: Any, *positional: Any, **named: Any) -> Any:
            if not isinstance(first, bytes):  # which are what a file holds
                self.file(first)
            return function(first, *positional, **named)

        def sectioned(section: str, *positional: Any, **named: Any) -> Any:
            self.add("section", section)
            self.in_load_params = True
            try:
                return function(section, *positional, **named)
            finally:
                self.in_load_params = False

        return sectioned if module == "stages.shared.core.params" else wrapped


class Wrapper(MetaPathFinder):
    """Wraps the functions of WRAPPED right after their module has run, before anyone can import their names from it."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.searched: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        functions = WRAPPED.get(name)
        if functions is None or name in self.searched:
            return None
        self.searched.add(name)  # the other finders search, not this one again
        try:
            spec = find_spec(name)
        finally:
            self.searched.remove(name)  # some packages ask whether a module exists long before it is imported
        assert spec and spec.loader
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            for function in functions:
                setattr(module, function, self.recorder.wrap(name, getattr(module, function)))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if PROJECT:
    stage = os.environ.get(STAGE) or stage_of(sys.orig_argv)
    if stage:
        os.environ[STAGE] = stage  # for the processes it starts
        recorder = Recorder(stage)
        sys.meta_path.insert(0, Wrapper(recorder))
        sys.addaudithook(recorder.event)
