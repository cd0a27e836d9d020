"""Training: the loop, its tasks, and what moves the weights."""
