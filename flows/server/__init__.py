"""The Prefect server and its worker processes, and signals."""
