"""Benchmarks: recorded and compared as ratios, never timed assertions."""
