"""How a model writes a tool call, and how a call is found in a reply."""
