"""An engine whose answers outlive a killed run, a chunk of prompts at a time."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stages.shared.core.hashes import files_sha256
from stages.shared.generation.base import Completion, Constraints, Engine, Places, Prompts, Sampling
from stages.shared.generation.journal import AnswerJournal, key_of
from stages.shared.slates.constraint import PermutationConstraint


class ResumableEngine:
    """identity: all that decides an answer beside prompt and sampling: model and engine. chunk: prompts between two entries.

    A chunk is kept, and asked again, as a whole: which prompts share a batch changes the last bits, and a run that was resumed must
    end with the bytes of one that was not.
    """

    def __init__(self, engine: Engine, journal: AnswerJournal, identity: object, chunk: int):
        self.engine, self.journal, self.identity, self.chunk = engine, journal, identity, chunk

    def generate(
        self, prompts: Prompts, sampling: Sampling, constraints: Constraints = None, places: Places = None
    ) -> list[list[Completion]]:
        """See Engine."""
        results: list[list[Completion]] = []
        for start in range(0, len(prompts), self.chunk):
            rows = slice(start, start + self.chunk)
            part, rules = [list(prompt) for prompt in prompts[rows]], constraints[rows] if constraints else None
            part_places = list(places[rows] if places else range(start, start + len(part)))
            key = key_of([self.identity, asdict(sampling), part, part_places, [described(rule) for rule in rules or ()]])
            if (kept := self.journal.get(key)) is None:
                answers = self.engine.generate(part, sampling, rules, part_places)
                self.journal.put(key, [[[one.token_ids, one.logprobs] for one in samples] for samples in answers])
            else:
                answers = [[Completion(ids, logprobs) for ids, logprobs in samples] for samples in kept]
            results += answers
        return results


def described(rule: PermutationConstraint) -> dict[str, Any]:
    """What a journal knows a constraint by. A grammar follows from the tokenizer, which is a file of the model's folder."""
    return {name: value for name, value in asdict(rule).items() if name != "grammar"}


def folder_sha256(folder: Path) -> str:
    """One hash over names and contents of all files of a model folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = "\n".join(path.relative_to(folder).as_posix() for path in files)
    return hashlib.sha256(f"{names}\n{files_sha256(files)}".encode()).hexdigest()
