"""Codebooks and how they are learnt."""
