"""Parts of a long computation that outlive a killed run, kept outside the outputs until the stage ends well."""

import hashlib
import io
import os
import shutil
from pathlib import Path

import numpy as np

from stages.shared.core.progress import note

RESUME = Path(".gr2/resume")
DIGEST_BYTES = 32


class ResumePoints:
    """Arrays by name under `.gr2/resume/<stage>/<key>`.

    `key`: a hash of everything the arrays depend on. What was saved under another key is never loaded.
    """

    def __init__(self, stage: str, key: str, root: Path = RESUME):
        self.folder = root / stage / key

    def load(self, name: str) -> np.ndarray | None:
        """The array saved as `name`; None if there is none, or if its file is damaged (a full disk, a lost write)."""
        path = self._path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(content[DIGEST_BYTES:]).digest() != content[:DIGEST_BYTES]:
            note(f"{path}: damaged, so this part is computed again")
            return None
        array: np.ndarray = np.load(io.BytesIO(content[DIGEST_BYTES:]), allow_pickle=False)
        return array

    def save(self, name: str, array: np.ndarray) -> None:
        """Whole or not at all: written elsewhere, then renamed. The file is the SHA-256 of what follows, then the array as .npy."""
        body = io.BytesIO()
        np.save(body, array, allow_pickle=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{name}.partial"
        # A power cut may keep the new name and lose the content, so `load` trusts the hash and not the name.
        partial.write_bytes(hashlib.sha256(body.getbuffer()).digest() + body.getbuffer())
        os.replace(partial, self._path(name))

    def clear(self) -> None:
        """Call when the stage ends well. What runs with other keys left behind goes too: their parameters are no longer the project's."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.part"
