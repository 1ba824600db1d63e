"""Answers of a teacher that outlive a killed run: a line each in a file, kept until the stage ends well."""

import hashlib
import json
from pathlib import Path
from typing import Any

from stages.shared.core.progress import note
from stages.shared.core.resume import RESUME

DIGEST = 32  # hex digits before each line's content


class AnswerJournal:
    """`.gr2/resume/<stage>/answers.jsonl`. A key (key_of) is of all that decides an answer: prompt, model, sampling, the attempt's seed."""

    def __init__(self, stage: str, root: Path = RESUME):
        self.path = root / stage / "answers.jsonl"
        self._answers: dict[str, Any] = {}
        damaged = 0
        for line in self.path.read_bytes().splitlines() if self.path.exists() else ():
            if hashlib.sha256(line[DIGEST:]).hexdigest()[:DIGEST].encode() == line[:DIGEST]:
                entry = json.loads(line[DIGEST:])
                self._answers[entry["key"]] = entry["answer"]
            else:
                damaged += line != b""
        if self._answers or damaged:
            lost = f", {damaged} that were cut short are asked again" if damaged else ""
            note(f"{self.path}: {len(self._answers)} answers of an earlier run are used{lost}")

    def get(self, key: str) -> Any:
        """None where there is none."""
        return self._answers.get(key)

    def put(self, key: str, answer: Any) -> None:
        """In the file when it returns, so that a kill of this process loses nothing; a power cut may lose the last ones."""
        content = json.dumps({"key": key, "answer": answer}).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            # Begins with the end of a line: what a kill has cut short before stays a line of its own.
            file.write(b"\n" + hashlib.sha256(content).hexdigest()[:DIGEST].encode() + content + b"\n")
        self._answers[key] = answer

    def clear(self) -> None:
        """Call when the stage ends well."""
        self.path.unlink(missing_ok=True)


def key_of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
