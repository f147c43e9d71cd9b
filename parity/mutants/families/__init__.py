"""The built-in mutants, one file a part of the detectors; each has ``MUTANTS``."""
