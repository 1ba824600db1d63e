"""`python -m tasks.promotion.versions_to_serve NAME`: lays a version of `gr2 promote` out for `gr2 serve`, and prints where, as JSON.

A model answers only with the tables that it was trained on: the ids of its items, its SIDs, the bins of its features. So all of them come
along, as links into DVC's cache, with the params.yaml of their commit; the checkout stays as it is.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from tasks.dvc.lockfile import recorded_outputs
from tasks.dvc.revisions import locked_stages
from tasks.promotion.candidate import bring, fetch_missing
from tasks.promotion.decide import Artifact, has_artifacts, read_artifact
from tasks.promotion.registry import STAGE, ModelVersion, read_registry
from tasks.system.errors import ProjectError
from tasks.system.git import git

FOLDER = Path(".gr2/serving")
PARAMS = "params.yaml"
NEEDED = (  # beside the model
    *(f"data/ingest/{name}.parquet" for name in ("interactions", "items", "users")),
    "data/tokenize/sids.parquet",
    *(f"data/retrieve/{name}" for name in ("slates.parquet", "candidate_features.parquet", "domain_rules.json", "model", "metrics.json")),
)


def lay_out(root: Path, name: str) -> dict[str, str]:
    """name: `reranker@v0.0.2`, or `v0.0.2` (of promote.artifact); `reranker`, `reranker#prod` or `prod`: the version in use.

    -> version (as its tag says it), run (folder), model (in it). ProjectError where there is none, or its bytes are gone.
    """
    if not has_artifacts(root):
        raise ProjectError(f"{name}: neither a folder nor a version; dvc.yaml names no artifacts")
    artifact, version = _find(root, name)
    stages = locked_stages(root, version.commit)
    hashes = recorded_outputs(stages or {})
    if artifact.path not in hashes:
        raise ProjectError(f"{name}: the commit {version.commit[:10]} of {version.name} records no {artifact.path}; name another version")
    wanted = {path: md5 for path, md5 in hashes.items() if path in (artifact.path, *NEEDED)}
    folder = root / FOLDER / f"{artifact.name}-{version.name}-{version.commit[:12]}"
    fetch_missing(root, wanted)  # also where the links are laid: what they point to may be gone since
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
        try:
            bring(root, wanted, partial)
            (partial / PARAMS).write_text(git(root, "show", f"{version.commit}:./{PARAMS}"), encoding="utf-8")
            _publish(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return {"version": f"{artifact.name}@{version.name}", "run": str(folder.absolute()), "model": artifact.path}


def _find(root: Path, name: str) -> tuple[Artifact, ModelVersion]:
    named, at, _ = name.partition("@")
    stem, hash_mark, stage = name.partition("#")
    if hash_mark and stage.partition("#")[0] != STAGE:
        raise ProjectError(f"{name}: a version is put in use at the stage {STAGE} alone; say {stem}#{STAGE}")
    if at or name.removeprefix("v")[:1].isdigit():
        artifact = read_artifact(root, named if at else None)
        return artifact, read_registry(root, artifact.name).find(name)
    artifact = read_artifact(root, None if name == STAGE else stem)
    champion = read_registry(root, artifact.name).champion
    if champion is None:
        raise ProjectError(f"{name}: no version of {artifact.name} is in use; name one (gr2 promote --list shows them)")
    return artifact, champion


def _publish(partial: Path, folder: Path) -> None:
    partial.chmod(0o755)
    try:
        partial.rename(folder)
    except OSError:
        if not folder.exists():  # another server was faster, and laid out the same
            raise


if __name__ == "__main__":
    try:
        print(json.dumps(lay_out(Path.cwd(), sys.argv[1])))
    except ProjectError as error:
        sys.exit(str(error))
