"""A language model as a reranker: slates in, orders out."""
