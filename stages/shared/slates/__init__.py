"""A slate as a language model sees it: semantic IDs, prompt, trace, answer, decoding constraint."""
