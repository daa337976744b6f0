"""`generate` and `reconstruct`."""
