"""What a trained network is measured by, one evaluation a file, found by its tag. Each yields pairs (metric, value)."""
