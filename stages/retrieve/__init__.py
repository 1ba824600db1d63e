"""The stage `retrieve`: see docs/stages.md."""
