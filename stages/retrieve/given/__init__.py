"""Slates that someone's own retriever showed: read from logs, checked, and put where they belong in the users' sequences."""
