"""Deterministic weights, and their way from the legacy names to the new ones."""
