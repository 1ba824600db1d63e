"""Commands that rerank with a finished run, through stages.serve."""
