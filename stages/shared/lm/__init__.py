"""Language models on disk, and text as token ids."""
