"""A plan carried out: checkpoints, cells, samples, and what is shown meanwhile."""
