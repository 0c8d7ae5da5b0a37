"""The logs and tables of MED's own code, read and written."""
