"""Installs a lock and this project into the environment of the Python that runs it: `.venv/bin/python infra/install.py [LOCK]`.

LOCK: requirements.lock, or requirements-gpu.lock, which is complete: exactly its packages are installed, whatever they require.

uv does the work: it downloads, unpacks and compiles in parallel, and [tool.uv] in pyproject.toml lists the requirements of packages that do
not hold here. uv does not read pip's configuration, so this script passes on what `pip config list` has about indexes, certificates and the
proxy. A UV_ variable of the caller wins over it.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = "requirements.lock"
UV = "uv==0.13.9"
SECTIONS = ("global", "install", ":env:")  # of pip's configuration, the later ones win
OPTIONS = {  # pip's setting -> uv's option, given once for each value
    "index-url": "--default-index",
    "extra-index-url": "--index",
    "find-links": "--find-links",
    "trusted-host": "--allow-insecure-host",
    "constraint": "--constraints",
}
SWITCHES = {"no-index": "--no-index", "no-cache-dir": "--no-cache"}
VARIABLES = {  # pip's setting -> the environment variables that uv reads
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY"),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
    "timeout": ("UV_HTTP_TIMEOUT",),
}
DEFAULTS = {
    "DS_BUILD_OPS": "0",  # DeepSpeed as pure Python: its own kernels want a compiler, and are built on first use
    "UV_INDEX_STRATEGY": "unsafe-best-match",  # the best version of all indexes, as pip has it
    "UV_SYSTEM_CERTS": "1",  # as pip: the certificates of the machine
}


def main() -> None:
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", "--disable-pip-version-check", UV], check=True)
    listed = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True).stdout
    options, variables = translated(pip_settings(listed))
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable, "--compile-bytecode", *options]
    lock = sys.argv[1] if len(sys.argv) > 1 else LOCK
    command += ["--no-deps"] * (lock != LOCK) + ["--requirements", lock, "--editable", "."]
    result = subprocess.run(command, cwd=ROOT, env={**DEFAULTS, **variables, **os.environ}, check=False)
    sys.exit(result.returncode)


def pip_settings(listed: str) -> dict[str, str]:
    """Setting -> value from the lines of `pip config list`, e.g. global.index-url='https://...'; as they hold for pip install."""
    settings: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        if section in settings:
            settings[section][key] = str(ast.literal_eval(value))
    return {key: value for section in SECTIONS for key, value in settings[section].items()}


def translated(settings: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """uv's options and environment variables for these settings of pip; settings that concern neither are left out."""
    options = [word for key, option in OPTIONS.items() for value in settings.get(key, "").split() for word in (option, value)]
    options += [option for key, option in SWITCHES.items() if settings.get(key, "").lower() in ("1", "true", "yes", "on")]
    variables = {name: settings[key] for key, names in VARIABLES.items() if key in settings for name in names}
    return options, variables


if __name__ == "__main__":
    main()
