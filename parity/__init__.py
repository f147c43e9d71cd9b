"""Prove that two detectors are the same, or show exactly where they are not."""

__version__ = "0.1.0"
