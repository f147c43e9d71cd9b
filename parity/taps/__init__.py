"""What is recorded in a running engine: stage boundaries, decisions, float32 islands."""
