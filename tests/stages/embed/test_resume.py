"""A run after a kill computes only what is missing, and ends in the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.embed.encode import in_batches, resume_key
from stages.embed.params import EmbedParams
from stages.shared.core.resume import ResumePoints
from stages.shared.core.run import set_threads
from tests.support.embed_data import run, sentences, tiny_text_model, write_items

ROOT = Path(__file__).resolve().parents[3]


def vectors_of(rows: list[int]) -> np.ndarray:
    return np.array([[row, row * row] for row in rows], dtype=np.float32)


@pytest.fixture
def encoder() -> type:
    """Here: every test process imports this file, one runs it, and the package takes seconds."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer


@given(st.integers(1, 30), st.integers(1, 7), st.data())
def test_only_lost_parts_are_computed_again(tmp_path_factory, count, size, data):
    """The run before it saved every batch, and was killed after `kept`; some of those files are gone or damaged since."""
    points = ResumePoints("toy", "key", tmp_path_factory.mktemp("resume"))
    rows = np.random.default_rng(count).permutation(count).tolist()
    starts = range(0, count, size)
    kept = data.draw(st.integers(0, len(starts)))
    lost = data.draw(st.sets(st.sampled_from(range(kept)))) if kept else set()
    for start in starts[:kept]:
        points.save(str(start), vectors_of(rows[start : start + size]))
    for batch in lost:
        (points.folder / f"{starts[batch]}.part").write_bytes(b"damaged")
    asked = []
    found = in_batches(lambda part: (asked.append(part), vectors_of(part))[1], rows, size, points, 0.0)
    assert found.tolist() == vectors_of(rows).tolist()
    missing = [batch for batch in range(len(starts)) if batch >= kept or batch in lost]
    assert asked == [rows[starts[batch] : starts[batch] + size] for batch in missing]


@pytest.mark.parametrize(("every", "files"), [(0.0, ["0", "2", "4"]), (3600.0, [])])
def test_parts_are_saved_no_more_often_than_asked(tmp_path, every, files):
    points = ResumePoints("toy", "key", tmp_path)
    in_batches(vectors_of, list(range(7)), 2, points, every)
    assert sorted(path.stem for path in tmp_path.rglob("*.part")) == files


def test_a_part_may_hold_several_batches_and_damage_before_it_is_filled_in(tmp_path):
    rows, asked = list(range(12)), []
    points = ResumePoints("toy", "key", tmp_path)
    points.save("0", vectors_of(rows[:4]))
    points.save("8", vectors_of(rows[8:10]))
    found = in_batches(lambda part: (asked.append(part), vectors_of(part))[1], rows, 2, points, 3600.0)
    assert found.tolist() == vectors_of(rows).tolist() and asked == [[4, 5], [6, 7], [10, 11]]
    assert points.load("4").tolist() == vectors_of(rows[4:8]).tolist(), "the gap between two parts is closed on disk too"


def test_the_key_changes_with_all_that_decides_the_vectors_and_with_nothing_else(tmp_path, bfloat16_kernels):
    folder = tiny_text_model(tmp_path)
    plain = resume_key(["a", "b"], folder, "w", EmbedParams())
    changed = [{"batch_size": 3}, {"instruction": "x"}, {"pooling": "last"}, {"max_tokens": 5}, {"threads": 2}, {"dtype": "bfloat16"}]
    keys = [resume_key(["a", "b"], folder, "w", EmbedParams(**params)) for params in changed]
    keys += [resume_key(["b", "a"], folder, "w", EmbedParams()), resume_key(["a", "b"], folder, "v", EmbedParams()), plain]
    (folder / "tokenizer_config.json").write_text("{}")
    keys.append(resume_key(["a", "b"], folder, "w", EmbedParams()))
    assert len(set(keys)) == len(keys)
    same = EmbedParams(seed=1, save_seconds=1, dtype="float32", collaborative={"mode": "concat"})
    assert resume_key(["a", "b"], folder, "w", same) == keys[-1]


def test_a_stage_that_fails_keeps_its_parts_and_one_that_ends_well_does_not(tmp_path, monkeypatch, encoder):
    monkeypatch.chdir(tmp_path)
    tiny_text_model(tmp_path / "tiny")
    write_items(tmp_path, sentences(9))
    ResumePoints("embed", "of an older run").save("0", np.zeros(1))
    ResumePoints("sft", "of another stage").save("0", np.zeros(1))
    params = EmbedParams(model="tiny", pooling="last", batch_size=2, save_seconds=0)
    true_encode, calls = encoder.encode, []

    def fails_at_the_third(self, texts, **options):
        calls.append(texts)
        if len(calls) == 3:
            raise OSError(5, "the machine goes away")
        return true_encode(self, texts, **options)

    monkeypatch.setattr(encoder, "encode", fails_at_the_third)
    with pytest.raises(OSError, match="goes away"):
        run(params)
    assert len(list((tmp_path / ".gr2/resume/embed").iterdir())) == 2
    run(params)
    assert len(calls) == 3 + 3, "five batches; two were kept"
    assert [path.name for path in (tmp_path / ".gr2/resume").iterdir()] == ["sft"]


@pytest.mark.slow
def test_a_kill_in_the_middle(tmp_path, monkeypatch, encoder):
    texts = sentences(600)

    def project(name: str) -> Path:
        folder = tmp_path / name
        write_items(folder, texts)
        tiny_text_model(folder / "tiny", "qwen2")
        section = {"model": "tiny", "pooling": "last", "batch_size": 2, "save_seconds": 0.0}
        (folder / "params.yaml").write_text(yaml.safe_dump({"embed": section}))
        return folder

    def start(folder: Path) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with (folder / "log").open("wb") as log:
            return subprocess.Popen([sys.executable, "-m", "stages.embed"], cwd=folder, env=environment, stdout=log, stderr=log)

    calm, killed = project("calm"), project("killed")
    process = start(killed)
    while process.poll() is None and len(list(killed.glob(".gr2/resume/embed/*/*.part"))) < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (killed / "log").read_text()
    parts = sorted(killed.glob(".gr2/resume/embed/*/*.part"), key=lambda path: int(path.stem))
    assert 3 <= len(parts) < 300 and not (killed / "data/embed").exists()
    parts[1].write_bytes(parts[1].read_bytes()[:-7])

    true_encode, asked = encoder.encode, []
    monkeypatch.setattr(encoder, "encode", lambda self, part, **more: (asked.extend(part), true_encode(self, part, **more))[1])
    monkeypatch.chdir(killed)
    set_threads(1)
    run(EmbedParams(**yaml.safe_load((killed / "params.yaml").read_text())["embed"]))
    assert len(asked) == len(texts) - 2 * (len(parts) - 1)
    assert not list((killed / ".gr2/resume").iterdir())

    assert start(calm).wait() == 0, (calm / "log").read_text()
    for name in ("embeddings.npy", "metrics.json"):
        assert (killed / "data/embed" / name).read_bytes() == (calm / "data/embed" / name).read_bytes()
