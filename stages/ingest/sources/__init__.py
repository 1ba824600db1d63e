"""The layouts in which raw files come, and the synthetic world."""
