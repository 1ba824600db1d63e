import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.shared.core.errors import StageError
from stages.shared.core.hashes import files_sha256
from stages.shared.core.outputs import read_json
from stages.shared.core.schemas import SID_MAP, SIDS, read_table
from tests.support.tokenize_project import make_project, run

POOL = np.random.default_rng(0).normal(size=(120, 12)).astype(np.float32)
POOL[100:] = POOL[99]  # twenty alike: their prefix overflows


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def catalogue(project, rows: list[int], **more) -> dict[str, str]:
    """Runs the stage on these rows of the pool; source id -> SID."""
    make_project(project, POOL[rows], [f"s{row}" for row in rows])
    run(project, **more)
    sids = read_table(project / "data/tokenize/sids.parquet", SIDS)["sid"]
    return dict(zip([f"s{row}" for row in rows], sids, strict=True))


def release(project, name: str = "release") -> dict[str, str]:
    """Copies the output aside; what to set in order to append to it."""
    shutil.rmtree(project / name, ignore_errors=True)
    shutil.copytree(project / "data/tokenize", project / name)
    return {"append_to": name, "append_sha256": sha256(project / name)}


def sha256(folder) -> str:
    return files_sha256([folder / "sid_map.parquet", folder / "codebooks.safetensors"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(["random_last", "optimal_last"]))
def test_no_earlier_sid_ever_changes_or_is_given_again(project, data, mode):
    """Three generations: items come, items leave, some come back."""
    rows = st.lists(st.integers(0, 119), min_size=30, max_size=80, unique=True)
    given_ever = catalogue(project, sorted(data.draw(rows)), assignment=mode)
    for _ in range(2):
        settings_ = release(project)
        now = catalogue(project, data.draw(rows), assignment=mode, seed=data.draw(st.integers(0, 9)), **settings_)
        for source_id, sid in now.items():
            assert given_ever.get(source_id, sid) == sid
        given_ever |= now
        assert len(set(given_ever.values())) == len(given_ever)
        back = read_table(project / "data/tokenize/sid_map.parquet", SID_MAP)
        assert dict(back.select("source_id", "sid").iter_rows()) == given_ever
        assert back["item"].drop_nulls().n_unique() == len(now)


def test_appending_nothing_changes_nothing(project):
    rows = list(range(40))
    first = catalogue(project, rows)
    files = {path.name: path.read_bytes() for path in (project / "data/tokenize").iterdir()}
    assert catalogue(project, rows, **release(project)) == first
    for name in ("sids.parquet", "sid_map.parquet", "trie.safetensors", "codebooks.safetensors"):
        assert (project / "data/tokenize" / name).read_bytes() == files[name]


def test_drift_is_reported(project):
    catalogue(project, list(range(60)))
    settings_ = release(project)
    POOL_FAR = POOL.copy()
    try:
        POOL[60:80] += 4.0  # new items from somewhere else
        catalogue(project, list(range(80)), **settings_)
    finally:
        POOL[:] = POOL_FAR
    metrics = read_json(project / "data/tokenize/metrics.json")["append"]
    assert (metrics["old_items"], metrics["new_items"], metrics["retired_sids"], metrics["moved"]) == (60, 20, 0, 0.0)
    assert metrics["error_nearest"]["ratio"] > 2 and max(metrics["divergence_bits"]) > 0.2


def test_another_catalogue_is_refused(project):
    catalogue(project, list(range(40)))
    settings_ = release(project)
    right = sha256(project / "release")
    with pytest.raises(StageError, match=rf"append_sha256 is '{'0' * 64}' but release has {right}; set it to that"):
        catalogue(project, list(range(50)), append_to="release", append_sha256="0" * 64)
    with pytest.raises(StageError, match=r"3 x 8 codes, but tokenize.levels and codebook_size are 4 and 8"):
        catalogue(project, list(range(50)), levels=4, **settings_)
    with pytest.raises(StageError, match=r"nowhere/sid_map.parquet: no such file; tokenize.append_to must name a folder"):
        catalogue(project, list(range(50)), append_to="nowhere", append_sha256=right)
    make_project(project, POOL[:50, :6])
    with pytest.raises(StageError, match="vectors of 6 dimensions, the catalogue of append_to has 12"):
        run(project, **settings_)
    (project / "release/codebooks.safetensors").write_bytes(b"cut short")
    with pytest.raises(StageError, match=r"release/codebooks.safetensors: not codebooks of this stage"):
        catalogue(project, list(range(50)), append_to="release", append_sha256=sha256(project / "release"))


def test_rq_kmeans_appends_too(project):
    first = catalogue(project, list(range(50)), method="rqkmeans", assignment="optimal_last")
    now = catalogue(project, list(range(70)), method="rqkmeans", assignment="optimal_last", **release(project))
    assert {source_id: now[source_id] for source_id in first} == first and len(set(now.values())) == 70
