"""All that is asked of DVC and of dvc.lock. The only package that imports dvc."""
