"""From checked rows to the tables of the stage: ids, filters, splits, texts, leak checks."""
