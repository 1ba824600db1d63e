"""Codes given to items, each item its own SID."""
