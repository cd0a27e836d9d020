"""Finds places for the regularizer: the residual blocks, downsampling layers or classifier of any model."""
