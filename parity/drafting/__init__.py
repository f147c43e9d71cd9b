"""Draft a case by looking at the models of both engines: stages, weight rules, fills."""
