"""The stage `prerank`: see docs/stages.md."""
