"""The outputs in the workspace against what dvc.lock records of them, and back to it."""

from pathlib import Path

from tasks.dvc.repo import open_repo


def edited_outputs(root: Path) -> list[str]:
    """Outputs that were changed since their stage ran; DVC's cache may not have them as they are."""
    with open_repo(root) as repo:
        return [out.def_path for stage in repo.index.stages for out in stage.outs if "modified" in out.workspace_status().values()]


def check_out_recorded(root: Path) -> None:
    """Every output as dvc.lock records it, out of the cache, over what stands in the workspace. ProjectError where one is missing."""
    with open_repo(root) as repo:
        repo.checkout(force=True)
