"""Composition -> files: DICOM series, SEG, boxes, preview; one folder, all or nothing."""
