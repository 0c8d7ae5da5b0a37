"""Runs in other tools' formats: MED's published logs, both ways; Inspect AI; lmms-eval."""
