"""Image data sets, their splits and batches."""
