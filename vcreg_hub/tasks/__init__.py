"""What a network learns, one task a file, found by its tag."""
