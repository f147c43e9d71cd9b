"""Results, messages and pages."""
