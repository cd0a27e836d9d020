"""What is added to the gradient: the loss, its closed-form gradient, and the hooks that inject it."""
