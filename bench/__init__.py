"""The benchmarks: one command a row, each measured as ratios to a floor."""
