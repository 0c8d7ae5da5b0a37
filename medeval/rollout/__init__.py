"""One sample under one protocol: the conversation of a model and its tools."""
