"""Orders that rankers give to slates, whole or by windows."""
