"""The frozen store: making, writing and reading records."""
