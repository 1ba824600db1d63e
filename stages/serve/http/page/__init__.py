"""The page at `/`: what the reranker does, one user at a time."""
