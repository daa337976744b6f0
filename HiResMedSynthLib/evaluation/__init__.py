"""Measures of synthetic against real images."""
