"""What stages share: contracts, prompts, engines, training."""
