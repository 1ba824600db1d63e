"""Which files never go to a node: those that hold secrets, known by name or by their first line, and the folder of models."""

import re
from pathlib import Path, PurePosixPath

MODELS = "models"  # at the root: weights from elsewhere, which a node keeps a copy of
EXAMPLES = {".example", ".sample", ".template", ".dist"}  # .env.example shows how a file looks and holds nothing
FOLDERS = {".aws", ".azure", ".gnupg", ".kube", ".ssh"}
SECRET_FILE = re.compile(
    r"\.env(\..+)?|\.envrc|.+\.env"
    r"|.+\.(pem|key|p12|pfx|ppk|jks|keystore|kdbx|gpg)|id_(rsa|dsa|ecdsa|ed25519)(_sk)?"
    r"|\.?(netrc|pgpass|htpasswd|git-credentials|npmrc|pypirc|dockercfg)|kubeconfig|config\.local"
    r"|(.*[._-])?(secrets?|credentials?|service[_-]account)([._-].*)?\.(ya?ml|json|toml|ini|cfg|txt|env)|credentials",
    re.IGNORECASE,
)
PRIVATE_KEY = re.compile(rb"\s*-----BEGIN [A-Z0-9 ]*PRIVATE KEY")
FIRST_BYTES = 200


def never_travels(root: Path, path: str) -> bool:
    """Whether the file `path` of the project at `root` stays on this machine, whoever tracks or declares it."""
    name = PurePosixPath(path)
    if name.parts[0] == MODELS or FOLDERS.intersection(name.parts[:-1]):
        return True
    if SECRET_FILE.fullmatch(name.name) and not EXAMPLES.intersection(name.suffixes):
        return True
    return _begins_as_private_key(root / path)


def _begins_as_private_key(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False  # of a link git keeps the target's name alone
    with path.open("rb") as file:
        return PRIVATE_KEY.match(file.read(FIRST_BYTES)) is not None
