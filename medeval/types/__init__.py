"""Each thing said once, as a type and as its JSON."""
