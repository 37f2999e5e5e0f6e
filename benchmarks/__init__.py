"""Benchmarks: `make bench`. Figures are of this machine and this moment; compare only what ran in one go."""
