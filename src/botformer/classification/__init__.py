"""Logits -> loss, accuracy: what training sees of a classifier."""
