"""DVC experiments: the queue, its workers, their lineage."""
