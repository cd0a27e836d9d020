"""Images and videos: where they come from, how they are split, and how they are shown to a network."""
