"""What features look like: collapse, spectrum, similarity, information. Tensors in, floats out."""
