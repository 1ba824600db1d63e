"""HOW one stage is run: identity, cores, logs, failure, lineage."""
