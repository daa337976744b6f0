"""Data sets: many cases from one spec, by processes or a cluster, resumable, split by patient and lesion donor."""
