"""Annotated images -> batches for a detector."""
