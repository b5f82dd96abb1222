"""Proposals -> classes and boxes, masks, key points."""
