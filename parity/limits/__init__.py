"""Which top-k, threshold and upper bound of a case its records show, and which of them no record binds."""
