"""Measures a trained network, one evaluation a file, found by its tag. Each yields pairs (metric, value)."""
