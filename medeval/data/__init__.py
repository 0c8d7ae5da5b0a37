"""Turns rows of a data set into samples."""
