"""One run of stages: what would run, running it, its state afterwards."""
