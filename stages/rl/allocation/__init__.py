"""What rollouts are spent on, and which of them the update learns from: one way a file, all off by default."""
