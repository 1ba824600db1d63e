"""Stages on nodes of Prefect work pools, from both sides."""
