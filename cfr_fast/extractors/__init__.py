"""Frozen feature extractors, by name."""
