"""`python -m stages.shared.generation.engine_worker FD`: the engine of an EngineProcess, which writes to it and reads from FD."""

import json
import os
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from stages.shared.core.errors import StageError
from stages.shared.core.run import set_threads, without_library_bars
from stages.shared.generation.base import Engine, Sampling
from stages.shared.generation.choose import open_engine
from stages.shared.generation.params import EngineParams
from stages.shared.lm.models import load_tokenizer
from stages.shared.slates.constraint import LayoutTokenIds, PermutationConstraint
from stages.shared.slates.json_constraint import JsonConstraint
from stages.shared.slates.json_grammar import JsonGrammar, grammar_of


def main(descriptor: int) -> None:
    """Ends with its input. A StageError is an answer; anything else is a traceback, of which the other side shows the last line."""
    os.set_inheritable(descriptor, False)  # not of the processes that an engine may start
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    with os.fdopen(descriptor, "w", encoding="utf-8") as answers:

        def answer(**content: object) -> None:
            answers.write(json.dumps(content) + "\n")
            answers.flush()

        try:
            opening = json.loads(sys.stdin.readline())
            without_library_bars()
            set_threads(opening["threads"])
            params = EngineParams.model_validate(opening["params"])
            folder, follows = Path(opening["folder"]), opening.get("follows", False)
            with open_engine(params, folder, opening["seed"], opening["threads"], follows=follows) as engine:
                answer(result=None)
                for line in sys.stdin:
                    answer(result=obey(engine, json.loads(line), folder))
        except StageError as error:
            answer(error=str(error))


def end_with(parent: int) -> None:
    """Ends this process when its parent is gone: it may be in the middle of a long request, on a GPU that others need."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def obey(engine: Any, request: dict[str, Any], folder: Path) -> list[list[list[Any]]] | None:
    """Prompts are answered; `weights` replaces those of the engine, `sleep` frees its GPU until then. folder: of the model."""
    if "weights" in request:
        engine.load_weights(Path(request["weights"]))
    elif "sleep" in request:
        engine.sleep()
    else:
        return generate(engine, request, folder)
    return None


def generate(engine: Engine, request: dict[str, Any], folder: Path) -> list[list[list[Any]]]:
    """[token ids, log-probabilities, those of the distribution drawn from] by prompt and sample."""
    constraints = [constraint(row, folder) for row in request["constraints"] or ()]
    completions = engine.generate(request["prompts"], Sampling(**request["sampling"]), constraints or None, request["places"])
    return [[[one.token_ids, one.logprobs, one.drawn_logprobs] for one in samples] for samples in completions]


def constraint(row: dict[str, Any], folder: Path) -> PermutationConstraint:
    """As EngineProcess.send_prompts wrote it."""
    values = {**row, "layout": LayoutTokenIds(**row["layout"])}
    if "grammar" not in row:
        return PermutationConstraint(**values)
    return JsonConstraint(**{**values, "spelled": tuple(row["spelled"]), "grammar": grammar_at(folder)})


@cache
def grammar_at(folder: Path) -> JsonGrammar:
    return grammar_of(load_tokenizer(folder))


if __name__ == "__main__":
    main(int(sys.argv[1]))
