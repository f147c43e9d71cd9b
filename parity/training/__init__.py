"""Real training with either engine, its loss curve in one format, and batches that both are trained on."""
