"""The retrievers behind one interface."""
