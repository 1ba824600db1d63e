"""From the bytes of a raw file to checked rows."""
