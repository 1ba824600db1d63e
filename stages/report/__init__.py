"""The stage `report`: see docs/stages.md."""
