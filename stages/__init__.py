"""WHAT is computed: one package a stage, and what they share."""

import os

# Before torch loads OpenMP: threads that wait shall sleep, not spin.
# Two stages side by side on the same cores otherwise slow each other tenfold.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
