"""The stage `rl`: see docs/stages.md."""
