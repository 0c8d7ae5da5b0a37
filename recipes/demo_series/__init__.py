"""The trainer of the shipped demo series: `python -m recipes.demo_series DIR`."""
