"""Commands for data of one's own: what they are, and whether they will do."""
