"""The stage `midtrain`: see docs/stages.md."""
