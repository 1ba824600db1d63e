"""Commands that need a Prefect server that stays: schedules, workers and work pools."""
