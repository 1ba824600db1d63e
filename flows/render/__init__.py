"""What commands print, as a person reads it."""
