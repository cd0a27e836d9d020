"""Publishing: export, card, publish, download, verify. Nothing here trains; a run folder on disk is all it needs."""
