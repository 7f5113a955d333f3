"""Samples, readers, preparation and the procedural set; knows no other room."""
