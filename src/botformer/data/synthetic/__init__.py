"""Data sets that are generated on this machine from real images."""
