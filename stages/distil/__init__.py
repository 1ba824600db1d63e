"""The stage `distil`: see docs/stages.md."""
