"""Training scripts: run from a checkout, not installed."""
