"""Questions about where data and models come from, and whether every hash fits."""
