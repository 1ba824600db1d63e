"""The stage `embed`: see docs/stages.md."""
