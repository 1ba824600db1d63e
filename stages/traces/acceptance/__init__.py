"""Which traces are kept, and what chance alone would have had kept."""
