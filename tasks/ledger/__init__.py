"""The lineage record: OpenLineage events, appended to one file, chained by hash, anchored in git."""
