"""Implementations with their interpreters, and how to start and talk to them."""
