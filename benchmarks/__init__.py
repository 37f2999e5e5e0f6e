"""Benchmarks: `make bench`, or `python -m benchmarks --help`.

A *part* (benchmarks/parts) asks one question and has a *case* per database or per peer. Each case runs in a process of
its own, bounded in time; what it measured is one line in a file. The report is made from that file.
"""
