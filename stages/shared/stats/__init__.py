"""Ranking metrics, intervals and tests."""
