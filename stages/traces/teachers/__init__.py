"""Who writes traces: what a teacher is, the statistical one, and language models."""
