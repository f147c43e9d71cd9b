"""Detectors as declarations: what to prove, and where its stages begin and end."""
