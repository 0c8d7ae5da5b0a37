"""Processes with engines of their own, on one machine or several."""
