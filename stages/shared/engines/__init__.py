"""Generation behind one small interface: prompts and sampling in, token ids and log-probabilities out."""
