"""`gr2 init FOLDER`: what the files of a folder are taken for, and the profile that ingests them."""
