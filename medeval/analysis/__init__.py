"""What the records of a run say; reads records only, never an engine."""
