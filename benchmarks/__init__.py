"""What scoring costs, in time and memory, as ratios within one run: ``python -m benchmarks``."""
