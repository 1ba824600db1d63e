"""Which model is in use: versions as git tags, what is decided before one is made, and the way back."""
