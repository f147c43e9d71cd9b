"""Differential fuzzing: situations that nobody thought of, run live in the legacy engine and in the new one."""
