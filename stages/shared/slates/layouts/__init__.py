"""How a slate is written for a language model: layouts behind one interface, and what they mean in a tokenizer's ids."""
