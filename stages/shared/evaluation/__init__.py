"""What the evaluation records and the report reads: who is measured, on which slates, and the table of answers."""
