"""A run folder: append, resume, read back."""
