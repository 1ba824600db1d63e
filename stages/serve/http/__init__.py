"""The reranker behind HTTP."""
