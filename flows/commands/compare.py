"""gr2 compare: runs against the first of them, in metrics with intervals, parameters and code."""

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.commands import add_json_option
from tasks.domain.compare_command import OUTPUTS, SLATES, compare_command
from tasks.dvc.revisions import code_differences, file_of, parameter_differences, read_revision
from tasks.system.errors import ProjectError


def add_options(parser: argparse.ArgumentParser) -> None:
    add_json_option(parser)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a git revision, tag, experiment, `workspace`, or another project's folder")
    parser.add_argument("--model", action="append", help="whose answers to compare; repeatable (default: rl)")
    parser.add_argument("--metric", help="the metric (default: ndcg@5)")


def execute(options: argparse.Namespace, cwd: Path) -> int:
    if len(options.runs) < 2 or len(set(options.runs)) < len(options.runs):
        raise ProjectError("compare: give two or more runs, each once")
    root = Path.cwd()
    runs = [read_revision(root, cwd, name) for name in options.runs]
    files = [file_of(run, OUTPUTS) for run in runs]
    slates = [file_of(run, SLATES, required=False) for run in runs]
    arguments = [*(f"--model={name}" for name in options.model or ()), *([f"--metric={options.metric}"] if options.metric else [])]
    command = compare_command([run.name for run in runs], files, slates, *arguments, as_json=options.json)
    params, code = parameter_differences(runs), code_differences(runs)
    if options.json:
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if process.returncode == 0:
            commits = {run.name: run.commit or None for run in runs}
            print(json.dumps(json.loads(process.stdout) | {"commits": commits, "params": params, "code": code}, indent=2))
        return process.returncode
    exit_code = subprocess.run(command, check=False).returncode
    if exit_code == 0:
        print("", *_differences(params, code), sep="\n")
    return exit_code


def _differences(params: Mapping[str, Sequence[object]], code: list[str]) -> list[str]:
    lines = [f"{key}: {' | '.join(map(json.dumps, values))}" for key, values in params.items()]
    lines = (
        ["parameters that differ, in the order of the runs:", *(f"  {line}" for line in lines)]
        if lines
        else ["the parameters are the same"]
    )
    return [*lines, *([f"code that differs: {', '.join(code)}"] if code else [])]
