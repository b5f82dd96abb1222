"""One file a verb, straight-line."""
