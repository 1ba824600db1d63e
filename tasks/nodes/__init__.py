"""Where stages run: placements, a node's slots, the code snapshot that nodes get."""
