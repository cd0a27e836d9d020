"""Numbers of finished runs: gathered, averaged over seeds and splits, compared, drawn."""
