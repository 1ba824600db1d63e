"""What draws the rollouts: transformers on the policy's own weights, or an engine in a process of its own that gets them again and again."""
