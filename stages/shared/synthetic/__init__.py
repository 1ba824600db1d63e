"""The synthetic world whose best order is known."""
