"""One run of the pipeline as a Prefect flow."""
