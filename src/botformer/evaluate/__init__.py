"""Trained networks measured on data sets."""
