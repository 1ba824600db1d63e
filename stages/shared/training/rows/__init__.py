"""The rows that training takes: made once a node, in files, in the order of their lengths where that is asked for."""
