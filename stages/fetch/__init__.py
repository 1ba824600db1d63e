"""The stage `fetch`: see docs/own-data.md."""
