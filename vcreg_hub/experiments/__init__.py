"""Whole studies: grids of runs, and the walk from choosing coefficients to test numbers."""
