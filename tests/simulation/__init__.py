"""Seeded simulations: many workers in one process, on a virtual clock, with faults at every transaction."""
