"""Where the regularizer sits: the residual blocks, downsampling layers or classifier of any model."""
