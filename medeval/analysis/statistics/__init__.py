"""Intervals, paired tests and the bootstrap."""
