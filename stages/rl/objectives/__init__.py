"""What the policy is trained to minimise: one objective a file."""
