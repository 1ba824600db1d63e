"""Tests of stages/serve/formats."""
