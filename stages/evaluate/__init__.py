"""The stage `evaluate`: see docs/stages.md."""
