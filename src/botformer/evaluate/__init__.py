"""Trained networks measured on data sets: the numbers, the drawings, and the files that hold them."""
