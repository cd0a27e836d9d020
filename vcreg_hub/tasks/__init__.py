"""A network's tasks, one a file, found by its tag."""
