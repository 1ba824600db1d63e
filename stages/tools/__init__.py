"""Command-line tools that read what stages made. They are no stages and no part of any stage's identity."""
