"""The stage `traces`: see docs/stages.md."""
