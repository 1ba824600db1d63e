"""The command line, gr2. It imports only the module of the chosen command: `gr2 --help` takes a tenth of a second.

Exit codes: 1 a stage failed, a control showed a gain, doctor found something missing or a candidate was refused,
2 a wrong request or project, 130 stopped.
"""

import argparse
import gc
import importlib.util
import os
import sys
from importlib import import_module
from pathlib import Path

from flows.commands import INTERRUPTED, WRONG
from tasks.system.errors import ProjectError, fault_of_machine
from tasks.system.requirements import not_installed

COMMANDS = {  # name -> (module in flows.commands, help text)
    "init": ("intake.init", "look at the files of a folder, say what they are taken for, and write the profile that ingests them"),
    "validate": ("intake.validate", "check a data set against what the stages need under these parameters"),
    "run": ("run", "run the stages that are not current, with what they need"),
    "plan": ("plan", "what would run and why, running nothing"),
    "status": ("status", "each stage: current, changed or never run; its last run"),
    "doctor": ("doctor", "what a run needs of memory, models, disk and engines, and what is missing here"),
    "deps": ("deps", "compare the code deps in dvc.yaml with what the stages import"),
    "profiles": ("profiles", "the parameter profiles"),
    "lineage": ("lineage", "from an output back to the raw file, and on to every model made from it"),
    "power": ("tables.power", "how many slates it takes to see a gain, from the outputs of the last evaluation"),
    "seeds": ("tables.seeds", "the gains over finished runs of several training seeds"),
    "show": ("tables.show", "what a stage asked of a language model, and what it said: a row, or the answers to a slate"),
    "rollouts": ("tables.rollouts", "what the policy answered while rl taught it: slate, trace, parts of the reward, advantage"),
    "rerank": ("serving.rerank", "a file of histories and candidates in, a file of orders out, by the model of a finished run"),
    "export": ("serving.export", "one-pass mode as a CrossEncoder of sentence-transformers, and the prompts that it reads"),
    "serve": ("serving.serve", "the model of a finished run behind HTTP, as rerank clients know it; Ctrl-C ends it"),
    "pools": ("server.pools", "make or renew the work pools, GPU limits and deployments of a placement on the Prefect server"),
    "forget": ("forget", "what a user's deletion request touches, and the rerun that removes it"),
    "server": ("server.start", "the Prefect server for schedules and nodes, on PostgreSQL where one is installed; Ctrl-C ends it"),
    "schedule": ("server.schedule", "run at set times: add (the default with --cron), list, pause, resume, remove, history"),
    "worker": ("server.worker", "serve the schedules of this checkout, or stages of a placement's pool; Ctrl-C ends it"),
    "compare": ("compare", "runs against the first of them: metrics with intervals, and what differs"),
    "gc": ("gc", "remove from DVC's cache what no tag, branch, experiment, promotion or workspace needs"),
    "promote": ("promote", "decide whether a run takes the place of the version in use, and tag it if every gate is passed"),
    "rollback": ("rollback", "the version before is in use again, in the tags and in the workspace"),
}


def main(arguments: list[str] | None = None) -> int:
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        cwd = Path.cwd()
        os.chdir(_project_root(cwd))
        return int(options.execute(options, cwd))
    except ProjectError as error:
        print(f"gr2: {error}", file=sys.stderr)
        return WRONG
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or importlib.util.find_spec(package):  # a module that no version of it has, or one of ours: a bug
            raise
        print(f"gr2: {not_installed([package])}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("gr2: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) had enough
        return 0
    except Exception as error:
        if not (fault := fault_of_machine(error)):
            raise  # a bug
        print(f"gr2: {fault}", file=sys.stderr)
        return WRONG


def _project_root(cwd: Path) -> Path:
    for folder in (cwd, *cwd.parents):
        if (folder / "dvc.yaml").exists():
            return folder
    raise ProjectError(f"no dvc.yaml in {cwd} or above it; run at the root of the project")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gr2", description="Runs the pipeline that dvc.yaml describes, and says what it did and why.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    chosen = arguments[0] if arguments else ""  # gr2 has no option of its own besides --help, so a command comes first
    for name, (module_name, text) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=text, description=text)
        if name == chosen:
            gc.disable()  # all that an import makes stays: collections in between are a sixth of its time
            module = import_module(f"flows.commands.{module_name}")
            gc.enable()
            module.add_options(subparser)
            subparser.set_defaults(execute=module.execute)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
