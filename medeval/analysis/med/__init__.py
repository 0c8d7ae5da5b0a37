"""Measure, explain, diagnose: the terms of MED and their tables."""
