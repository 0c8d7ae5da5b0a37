"""How well the tools were used: process metrics, from a run folder alone."""
