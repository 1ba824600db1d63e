"""The reranker in a process of its own: the server goes on answering whatever becomes of it."""
