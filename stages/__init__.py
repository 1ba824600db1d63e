"""WHAT is computed: one package a stage, and what they share."""

import os

# OpenMP reads this once, when torch loads it, and every `python -m stages.<name>` imports this file before anything else: waiting threads
# sleep instead of spinning. Otherwise two stages on the same cores slow each other down tenfold. Because it changes how a stage runs, it
# is a dependency of every stage in dvc.yaml, as a single file: the folder would make each stage depend on all the others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
