"""Airports, imported from CSV files by a workflow."""
