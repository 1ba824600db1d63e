"""The project as its files describe it: the graph of stages, parameters, profiles, code dependencies."""
