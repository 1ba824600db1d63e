"""What the stage says of its data: metrics and the data card."""
