"""What rankers do beyond their score."""
