"""Files of lists that were shown, and what was taken of them: found, told by their columns, and read for a look."""
