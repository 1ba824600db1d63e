"""`python -m stages.shared.generation.engine_worker FD`: one engine of a DataParallelEngine, which writes to it and reads from FD."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from stages.shared.core.errors import StageError
from stages.shared.core.run import set_threads, without_library_bars
from stages.shared.generation.base import Engine, Sampling
from stages.shared.generation.choose import open_engine
from stages.shared.generation.params import EngineParams
from stages.shared.slates.constraint import LayoutTokenIds, PermutationConstraint


def main(descriptor: int) -> None:
    """Ends with its input. A StageError is an answer; anything else is a traceback, of which the other side shows the last line."""
    os.set_inheritable(descriptor, False)  # not of the processes that an engine may start
    with os.fdopen(descriptor, "w", encoding="utf-8") as answers:

        def answer(**content: object) -> None:
            answers.write(json.dumps(content) + "\n")
            answers.flush()

        try:
            opening = json.loads(sys.stdin.readline())
            without_library_bars()
            set_threads(opening["threads"])
            params = EngineParams.model_validate(opening["params"])
            with open_engine(params, Path(opening["folder"]), opening["seed"], opening["threads"]) as engine:
                answer(result=None)
                for line in sys.stdin:
                    answer(result=generate(engine, json.loads(line)))
        except StageError as error:
            answer(error=str(error))


def generate(engine: Engine, request: dict[str, Any]) -> list[list[list[Any]]]:
    """[token ids, log-probabilities] by prompt and sample."""
    constraints = [PermutationConstraint(**{**one, "layout": LayoutTokenIds(**one["layout"])}) for one in request["constraints"] or ()]
    completions = engine.generate(request["prompts"], Sampling(**request["sampling"]), constraints or None, request["places"])
    return [[[one.token_ids, one.logprobs] for one in samples] for samples in completions]


if __name__ == "__main__":
    main(int(sys.argv[1]))
