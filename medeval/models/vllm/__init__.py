"""Models that vLLM runs, in this process or as a server."""
