"""pip's configuration as uv's options."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTED = """\
:env:.find-links='/srv/wheels'
:env:.no-cache-dir='1'
global.cert='/etc/certs.pem'
global.extra-index-url='https://one.example/simple https://two.example/simple'
global.find-links='/elsewhere'
global.index-url='https://pypi.example/simple'
global.proxy='http://proxy.example:3128'
global.quiet='1'
install.index-url='https://install.example/simple'
list.format='columns'
"""


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "infra" / "install.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_of_pip_become_options_of_uv(install: ModuleType) -> None:
    options, variables = install.translated(install.pip_settings(LISTED))
    assert options == [
        *("--default-index", "https://install.example/simple"),
        *("--index", "https://one.example/simple", "--index", "https://two.example/simple"),
        *("--find-links", "/srv/wheels"),
        "--no-cache",
    ]
    assert variables == {
        "SSL_CERT_FILE": "/etc/certs.pem",
        "HTTP_PROXY": "http://proxy.example:3128",
        "HTTPS_PROXY": "http://proxy.example:3128",
    }


def test_a_machine_without_a_configuration_of_pip(install: ModuleType) -> None:
    assert install.translated(install.pip_settings("")) == ([], {})
