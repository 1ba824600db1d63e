"""Files of other people's tools: TREC runs, and rank_llm's requests and results."""
