"""What is seen of a policy while it learns: its behaviour at every step, limits on it, probes, validation, and the rollouts themselves."""
