"""Recommender models and their data structures."""
