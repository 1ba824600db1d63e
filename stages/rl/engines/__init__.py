"""What draws the rollouts: transformers on the policy's own weights, or an engine process that gets them again and again."""
