"""Logits -> loss and accuracy: the classification task and its metrics."""
