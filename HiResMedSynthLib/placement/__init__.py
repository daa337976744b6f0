"""WHERE a lesion may go: danger mask, location prior, candidates."""
