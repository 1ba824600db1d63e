"""The stage `quantize`: see docs/stages.md."""
