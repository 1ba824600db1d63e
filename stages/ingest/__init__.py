"""The stage `ingest`: see docs/stages.md."""
