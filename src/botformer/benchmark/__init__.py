"""Implementations compared with each other: same results, time, memory; and the receipts that record it."""
