"""WHEN: the Prefect flow and the command line."""
