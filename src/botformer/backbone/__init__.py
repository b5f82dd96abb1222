"""Images -> {"c2": ..., "c5": ...}: ResNets and BoTNets from rows of data."""
