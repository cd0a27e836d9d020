"""Video data sets, their decoding, splits and batches."""
