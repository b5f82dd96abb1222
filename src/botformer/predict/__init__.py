"""Trained networks on images: what they predict, how it is drawn, and the files that hold it."""
