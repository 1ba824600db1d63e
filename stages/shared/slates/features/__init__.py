"""The features of candidates, counted and cut into bins."""
