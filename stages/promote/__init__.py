"""Whether a trained model may take the place of the one in use. No stage, and no part of any stage's identity: tasks.promotion runs it."""
