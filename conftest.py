"""Everything pytest needs to know is in ``parity.plugin`` and ``parity.ap.plugin``."""

pytest_plugins = ["parity.plugin", "parity.ap.plugin", "pytester"]
