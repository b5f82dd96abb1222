"""Implementations side by side: who computes the same, how fast, in how much memory, and a receipt of it."""
