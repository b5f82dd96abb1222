"""Data sets that are made on this machine, from real parts."""
