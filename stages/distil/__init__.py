"""The stage `sft`: see docs/stages.md."""
