"""Bad input: an error that names the place, an exit code other than 0, and earlier outputs as they were."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.project_clone import SmokeRun, call, clone, contents, environment, gr2, restored, set_params, stage

pytestmark = pytest.mark.slow

INTERACTIONS, ITEMS = "shop.inter", "shop.item"
FULL_DISK = Path(__file__).with_name("full_disk.sh")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    """A clone that ingested its own small folder; nothing else ran."""
    root = clone(tmp_path_factory.mktemp("shop") / "project")
    folder = root / "raw"
    folder.mkdir()
    rows = [f"u{user}\ti{(user * 7 + step) % 30}\t5\t{1000 * step + user}" for user in range(5) for step in range(25)]
    (folder / INTERACTIONS).write_text("\n".join(["user_id:token\titem_id:token\trating:float\ttimestamp:float", *rows]) + "\n")
    titles = [f"i{item}\tThing {item}\tTool" for item in range(30)]
    (folder / ITEMS).write_text("\n".join(["item_id:token\ttitle:token_seq\tcategories:token_seq", *titles]) + "\n")
    set_params(root, ingest={"source": "folder", "folder": "raw", "test_positions": 2, "base_share": 0.6})
    call(root, sys.executable, "-m", "flows.cli", "run", "ingest", env={**environment(root), "PREFECT_API_URL": server})
    return root


def no_users(folder: Path) -> None:
    path = folder / INTERACTIONS
    path.write_text(path.read_text().replace("user_id:token", "who:token"))


def zero_bytes(folder: Path) -> None:
    (folder / INTERACTIONS).write_bytes(b"")


def header_alone(folder: Path) -> None:
    path = folder / INTERACTIONS
    path.write_text(path.read_text().splitlines()[0] + "\n")


def latin1(folder: Path) -> None:
    path = folder / ITEMS
    path.write_bytes(path.read_bytes().replace(b"Thing 3\t", "Thé 3\t".encode("latin-1")))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_users, [INTERACTIONS, "column 'user_id' is missing"]),
        (zero_bytes, [INTERACTIONS]),
        (header_alone, [INTERACTIONS, "no rows"]),
        (latin1, [ITEMS, "row 5", "not UTF-8"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_spoilt_folders(shop: Path, spoil: Callable[[Path], None], words: list[str]) -> None:
    before = contents(shop / "data")
    paths = [shop / "raw" / INTERACTIONS, shop / "raw" / ITEMS]
    with restored(*paths):
        spoil(shop / "raw")
        result = stage(shop, "ingest", ok=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.startswith("ingest: ") and all(word in result.stderr for word in words), result.stderr
    assert contents(shop / "data") == before


def test_a_missing_folder_through_the_command_line(shop: Path) -> None:
    before = contents(shop / "data")
    with restored(shop / "params.yaml"):
        set_params(shop, ingest={"folder": "nowhere"})
        result = gr2(shop, "run", "ingest", ok=False)
    assert result.returncode == 2 and "ingest.folder: no such file or folder: nowhere; the default is data/raw" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert contents(shop / "data") == before


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("ingest", {"bse_share": 0.5}, ["ingest.bse_share: unknown key", "did you mean 'base_share'"]),
        ("ingest", {"min_interactions": "20"}, ["ingest.min_interactions", "'20'", "str"]),
        ("retrieve", {"candidates": 1}, ["retrieve.candidates", "greater than or equal to 2"]),
    ],
)
def test_spoilt_parameters(shop: Path, name: str, values: dict[str, object], words: list[str]) -> None:
    before = contents(shop / "data")
    with restored(shop / "params.yaml"):
        set_params(shop, **{name: values})
        result = stage(shop, name, ok=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.startswith(f"{name}: params.yaml: ") and all(word in result.stderr for word in words), result.stderr
    assert contents(shop / "data") == before


def spoilt_vectors(kind: str) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(30, 16)).astype(np.float32)
    if kind == "not a number":
        vectors[17, 3] = np.nan
    elif kind == "constant":
        vectors[:] = vectors[0]
    return vectors


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("not a number", ["data/embed/embeddings.npy", "item 17 is not finite", "gr2 run embed"]),
        ("constant", ["all 30 embeddings are the same", "embed.model"]),
        ("fewer items than codes", ["30 items with different embeddings cannot fill 32 codes", "lower tokenize.codebook_size"]),
    ],
)
def test_spoilt_embeddings(shop: Path, kind: str, words: list[str]) -> None:
    (shop / "data/embed").mkdir(exist_ok=True)
    np.save(shop / "data/embed/embeddings.npy", spoilt_vectors(kind))
    before = contents(shop / "data")
    result = stage(shop, "tokenize", ok=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "tokenize: " in result.stderr and all(word in result.stderr for word in words), result.stderr
    assert contents(shop / "data") == before


def test_items_without_text(shop: Path) -> None:
    before = contents(shop / "data")
    path = shop / "raw" / ITEMS
    with restored(path):
        path.write_text(path.read_text().replace("Thing 7\t", "&nbsp;\t"))
        result = stage(shop, "ingest", ok=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert INTERACTIONS in result.stderr and "item is not in the item file, or has no title there" in result.stderr, result.stderr
    assert contents(shop / "data") == before


def a_namespace(root: Path, folder: Path) -> list[str]:
    """The command that gives the next one its own mounts, as root or as anyone; skips where neither may."""
    if shutil.which("unshare") is None:
        pytest.skip("a full disk needs unshare (util-linux)")
    probe = ["sh", "-c", f"mount -t tmpfs tmpfs '{folder}' && mount --bind '{folder}' '{folder}'"]
    said = ""
    for unshare in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        tried = call(root, *unshare, *probe, ok=False)
        if tried.returncode == 0:
            return unshare
        said = tried.stderr.strip()
    pytest.skip(f"a full disk needs leave to mount one: {said}")


@pytest.mark.parametrize("name", ["ingest", "embed", "quantize"])  # Polars, numpy and safetensors each say it in their own way
def test_no_space_left(smoke: SmokeRun, tmp_path: Path, name: str) -> None:
    unshare = a_namespace(smoke.root, tmp_path)
    before = contents(smoke.root / "data")
    with restored(smoke.root / "params.yaml"):
        set_params(smoke.root, embed={"max_tokens": 8})  # its vectors take seconds, and are not what this is about
        result = call(smoke.root, *unshare, "sh", str(FULL_DISK), name, str(tmp_path), ok=False)
    assert result.returncode == 1, result.stderr
    assert f"{name}: no space left on the disk" in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert result.stdout.splitlines()[-1] == "earlier outputs intact", result.stdout
    assert contents(smoke.root / "data") == before
