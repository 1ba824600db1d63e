"""The stage `tokenize`: see docs/stages.md."""
