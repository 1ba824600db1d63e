"""What an answer earns: small functions of orders or of token ids, and how they are put together."""
