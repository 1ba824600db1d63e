"""The names of tests, which all test processes must agree on."""

import gzip

import pytest


@pytest.mark.parametrize("packed", [gzip.compress(b"one"), gzip.compress(b"two")])
def test_an_id_does_not_spell_out_bytes(request, packed):
    assert packed.startswith(b"\x1f\x8b")
    assert request.node.name in {f"{request.node.originalname}[packed{i}]" for i in (0, 1)}
