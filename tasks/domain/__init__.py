"""The only package of this room that knows what the pipeline is about: controls, comparison of runs, data sources, erasure."""
