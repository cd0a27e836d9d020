"""Pure tensors in, floats out; and the figures drawn from them."""
