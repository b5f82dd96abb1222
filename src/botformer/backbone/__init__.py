"""Images -> {"c2": ..., "c5": ...}: ResNets and BoTNets, built from the table of variants."""
