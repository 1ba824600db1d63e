"""What is kept and what may go: promotions and garbage collection."""
