"""What definition files define: benchmarks, protocols with their pairs, and judges."""
