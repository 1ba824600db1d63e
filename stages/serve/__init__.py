"""Reranking outside the pipeline, with the models of a finished run. No stage, and no part of any stage's identity."""
