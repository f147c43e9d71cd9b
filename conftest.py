"""Everything pytest needs to know is in ``parity.plugin``."""

pytest_plugins = ["parity.plugin", "pytester"]
