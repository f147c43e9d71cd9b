"""The pytest suites that users run."""
