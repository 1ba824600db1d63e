"""Secrets come from the environment or from Prefect blocks; here they are kept out of what is written, and refused in params.yaml."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from tasks.system.errors import ProjectError
from tasks.system.yaml_files import parse, read_text

PARAMS = "params.yaml"
SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIAL|AUTH_STRING", re.IGNORECASE)
URL_PASSWORD = re.compile(r"(?P<start>[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@'\"]*:)(?P<password>[^\s/@'\"<>]+)@")
SHORTEST = 6  # characters: `true` of TOKENIZERS_PARALLELISM is no secret

# Keys of params.yaml: whole, or as the last words of a longer one. `max_tokens`, `eos_token` and `tokenizer` are none of them.
KEY = re.compile(
    r".*(password|passwd|passphrase|credentials?)|(.*_)?(secret|(api|access|private|secret)_?key)"
    r"|token|(.*_)?(access|auth|api|bearer|refresh|hf|hub|github|session)_?token",
    re.IGNORECASE,
)

Secrets = list[tuple[str, str]]  # (value, what is written instead), longest first


def secrets(env: Mapping[str, str] | None = None) -> Secrets:
    """The values of secret-looking variables, each line of them, and the passwords in URLs of any variable."""
    placeholders: dict[str, str] = {}
    for name, value in (os.environ if env is None else env).items():
        lines = value.splitlines() if SECRET_NAME.search(name) else []
        passwords = [match["password"] for match in URL_PASSWORD.finditer(value)]
        # A password stands in a URL with %-escapes, and in an error message often without.
        for text in [*lines, *passwords, *map(unquote, passwords)]:
            if len(text.strip()) >= SHORTEST:
                placeholders[text.strip()] = f"<{name}>"
    # Longest first: a secret may contain another, whose replacement would leave the rest of it readable.
    return sorted(placeholders.items(), key=lambda entry: (-len(entry[0]), entry))


def without_secrets(text: str, secret_values: Secrets | None = None) -> str:
    """`text` with secrets (`secret_values`, or those of this process's environment) and passwords in URLs blanked out."""
    for value, name in secrets() if secret_values is None else secret_values:
        text = text.replace(value, name)
    return URL_PASSWORD.sub(r"\g<start><password>@", text) if "://" in text else text


def refuse_secret_params(root: Path, params: str | None = None) -> None:
    """ProjectError when params.yaml has what looks like a secret: it goes into git, dvc.lock and the lineage. `params`: the text that
    it is about to have; None: the one it has."""
    path = root / PARAMS
    if params is None and not path.exists():
        return
    text = read_text(path, "") if params is None else params
    suspects = [f"{key} ({why})" for key, why in _suspects(parse(text, PARAMS))]
    if suspects:
        raise ProjectError(
            f"{PARAMS}: {', '.join(suspects)}: secrets do not belong into parameters, which go into git, dvc.lock and the lineage; take "
            "the value out (and renew it if it was ever committed), and give it in the environment or a Prefect block (docs/security.md)"
        )


def _suspects(value: object, parent_key: str = "", name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, member in value.items():
            yield from _suspects(member, f"{parent_key}.{key}" if parent_key else str(key), str(key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _suspects(member, f"{parent_key}.{index}", name)
    elif isinstance(value, str) and value.strip():
        if KEY.fullmatch(name.replace("-", "_")):
            yield parent_key, "by its name a secret"
        elif URL_PASSWORD.search(value):
            yield parent_key, "a URL with a password in it"
