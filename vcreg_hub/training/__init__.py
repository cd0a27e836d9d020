"""The training loop, the optimizer and its schedule, averaged weights, and the state that a run resumes from."""
