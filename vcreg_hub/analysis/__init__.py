"""Measures features: collapse, spectrum, similarity, information. Tensors in, floats out."""
