"""The training loop, the optimizer and its schedule, averaged weights, and the state to resume from."""
