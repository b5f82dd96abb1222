"""Labelled images -> batches for a classifier."""
