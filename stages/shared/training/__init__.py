"""Training loops and optimizers."""
