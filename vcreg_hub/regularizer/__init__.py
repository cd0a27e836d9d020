"""The regularizer: the loss, its closed-form gradient, and the hooks for the backward pass."""
